"""Instructions of loops on sm_90, by variant of `test_compiled.py`, uint8 data.

Of kernels with tensor-core products every loop with such a product, in the order of their ends: of the first product
four digits and three, of sums of several splits the loop over rows and that over splits, which holds it. Of local
denoisers the longest loop, that over the rows, which does all of it.

As Triton 3.9 compiles them: other versions are free to differ. To renew: what a failing test says.
"""

TRITON = "3.9"

# LS and ELS of three channels: half a window, whether it goes round; sides of the tile, and how much of it is of use.
_ASKED = "MIRRORED0-DETAILS{details}-BIAS0-EXCLUDE0"
_TILE = "G3-HB{side}-WB{side}-USED{used}-WHOLE{whole}-SIDE32-C3"
_LS = (
    "local_kernel-u8-HALF_U{half}-HALF_V{half}-"
    + _ASKED
    + "-CIRCULAR{circular}-"
    + _TILE
    + "-PRIORS256-RULE{rule}-SHIFTS_U{shifts}-SHIFTS_V{shifts}-w{warps}"
)
_CROPS = "MIRRORED0-BIAS0-EXCLUDE0"  # of PSPC-Square, k
_OWN = {"rule": 0, "shifts": 1}
_WHOLE = {"details": 0, "side": 32, "used": 32, "whole": 1, "warps": 16}
_PARTLY = {"details": 0, "side": 32, "used": 30, "whole": 0, "warps": 16}
_DETAILS = {"details": 1, "side": 16, "used": 16, "whole": 0, "warps": 8}

LOOPS = {
    _LS.format(half=1, circular=0, **_WHOLE, **_OWN): (265,),
    _LS.format(half=1, circular=1, **_WHOLE, **_OWN): (246,),
    _LS.format(half=3, circular=0, **_WHOLE, **_OWN): (317,),
    _LS.format(half=3, circular=1, **_WHOLE, **_OWN): (275,),
    _LS.format(half=8, circular=0, **_WHOLE, **_OWN): (399,),
    _LS.format(half=8, circular=1, **_WHOLE, **_OWN): (319,),
    _LS.format(half=1, circular=0, **_PARTLY, **_OWN): (323,),
    _LS.format(half=3, circular=0, **_DETAILS, **_OWN): (496,),
    _LS.format(half=1, circular=1, **_WHOLE, rule=1, shifts=32): (272,),
    _LS.format(half=1, circular=1, **_WHOLE, rule=2, shifts=32): (289,),
    _LS.format(half=1, circular=0, **_WHOLE, rule=3, shifts=59): (342,),
    "crops_mass_kernel-u8-K3-" + _CROPS + "-" + _TILE.format(**_WHOLE) + "-DETAILS0-PRIORS256-w16": (251,),
    "crops_sum_kernel-u8-K3-" + _CROPS + "-" + _TILE.format(**_WHOLE) + "-w16": (301,),
    "crops_mass_kernel-u8-K7-" + _CROPS + "-" + _TILE.format(**_WHOLE) + "-DETAILS0-PRIORS256-w16": (291,),
    "crops_sum_kernel-u8-K7-" + _CROPS + "-" + _TILE.format(**_WHOLE) + "-w16": (388,),
    "crops_sum_kernel-u8-K3-" + _CROPS + "-" + _TILE.format(side=32, used=28, whole=0) + "-w16": (301,),
    "crops_apart_kernel-u8-K3-" + _CROPS + "-" + _TILE.format(**_WHOLE).replace("G3", "G2") + "-w16": (296,),
    "logits_bytes-u8-BN128-BB16-BD128-LONG0-BIAS0-EXCLUDE0-w4": (210, 164),
    "logits_bytes-u8-BN128-BB16-BD128-LONG0-BIAS1-EXCLUDE0-w4": (210, 164),
    "logits_bytes-u8-BN128-BB16-BD128-LONG0-BIAS2-EXCLUDE0-w4": (210, 164),
    "logits_bytes-u8-BN128-BB16-BD128-LONG1-BIAS0-EXCLUDE0-w4": (386, 370),
    "logits_bytes-u8-BN128-BB32-BD64-LONG0-BIAS0-EXCLUDE0-w8": (149, 106),
    "logits_bytes-u8-BN128-BB32-BD64-LONG0-BIAS1-EXCLUDE0-w8": (149, 106),
    "logits_bytes-u8-BN128-BB32-BD64-LONG0-BIAS2-EXCLUDE0-w8": (145, 97),
    "logits_bytes-u8-BN128-BB32-BD64-LONG1-BIAS0-EXCLUDE0-w8": (271, 308),
    "logits_bytes-u8-BN128-BB64-BD128-LONG0-BIAS0-EXCLUDE0-w8": (209, 140),
    "logits_bytes-u8-BN128-BB64-BD128-LONG0-BIAS1-EXCLUDE0-w8": (209, 140),
    "logits_bytes-u8-BN128-BB64-BD128-LONG1-BIAS0-EXCLUDE0-w8": (453, 553),
    "weighted_sum_kernel-u8-BB16-BD128-SPLIT1024-STEP64-SEVERAL0-w4": (427,),
    "weighted_sum_kernel-u8-BB16-BD128-SPLIT1024-STEP64-SEVERAL1-w4": (411, 895),
    "weighted_sum_kernel-u8-BB64-BD64-SPLIT1024-STEP64-SEVERAL0-w4": (244,),
    "weighted_sum_kernel-u8-BB64-BD64-SPLIT1024-STEP64-SEVERAL1-w4": (281, 893),
    "weighted_sum_kernel-u8-BB64-BD128-SPLIT1024-STEP64-SEVERAL0-w8": (314,),
    "weighted_sum_kernel-u8-BB64-BD128-SPLIT1024-STEP64-SEVERAL1-w8": (353, 949),
}
