"""Instructions of the longest loop on sm_90, by variant of `test_compiled.py`, uint8 data.

Of kernels with tensor-core products the longest with such a product; of LS that over the rows, which does all of it.

As Triton 3.9 compiles them: other versions are free to differ. To renew: what a failing test says.
"""

TRITON = "3.9"

# LS of three channels: half a window, whether it goes round; sides of the tile, of which so many pixels are of use.
_ASKED = "MIRRORED0-DETAILS{details}-BIAS0-EXCLUDE0-G3"
_TILE = "HB{side}-WB{side}-USED{used}-WHOLE{whole}-CIRCULAR{circular}-C3-SIDE32-PRIORS256-w{warps}"
_LS = "local_kernel-u8-HALF_U{half}-HALF_V{half}-" + _ASKED + "-" + _TILE
_WHOLE = {"details": 0, "side": 32, "used": 32, "whole": 1, "warps": 16}
_PARTLY = {"details": 0, "side": 32, "used": 30, "whole": 0, "warps": 16}
_DETAILS = {"details": 1, "side": 16, "used": 16, "whole": 0, "warps": 8}

LOOPS = {
    _LS.format(half=1, circular=0, **_WHOLE): 281,
    _LS.format(half=1, circular=1, **_WHOLE): 250,
    _LS.format(half=3, circular=0, **_WHOLE): 327,
    _LS.format(half=3, circular=1, **_WHOLE): 275,
    _LS.format(half=8, circular=0, **_WHOLE): 410,
    _LS.format(half=8, circular=1, **_WHOLE): 319,
    _LS.format(half=1, circular=0, **_PARTLY): 330,
    _LS.format(half=3, circular=0, **_DETAILS): 503,
    "logits_bytes-u8-BN128-BB16-BD128-LONG0-BIAS0-EXCLUDE0-w4": 243,
    "logits_bytes-u8-BN128-BB16-BD128-LONG0-BIAS1-EXCLUDE0-w4": 243,
    "logits_bytes-u8-BN128-BB16-BD128-LONG0-BIAS2-EXCLUDE0-w4": 238,
    "logits_bytes-u8-BN128-BB16-BD128-LONG1-BIAS0-EXCLUDE0-w4": 415,
    "logits_bytes-u8-BN128-BB32-BD64-LONG0-BIAS0-EXCLUDE0-w8": 158,
    "logits_bytes-u8-BN128-BB32-BD64-LONG0-BIAS1-EXCLUDE0-w8": 158,
    "logits_bytes-u8-BN128-BB32-BD64-LONG0-BIAS2-EXCLUDE0-w8": 155,
    "logits_bytes-u8-BN128-BB32-BD64-LONG1-BIAS0-EXCLUDE0-w8": 276,
    "logits_bytes-u8-BN128-BB64-BD128-LONG0-BIAS0-EXCLUDE0-w8": 218,
    "logits_bytes-u8-BN128-BB64-BD128-LONG0-BIAS1-EXCLUDE0-w8": 218,
    "logits_bytes-u8-BN128-BB64-BD128-LONG1-BIAS0-EXCLUDE0-w8": 478,
    "weighted_sum_kernel-u8-BB16-BD128-SPLIT1024-STEP64-w4": 423,
    "weighted_sum_kernel-u8-BB64-BD64-SPLIT1024-STEP64-w4": 262,
    "weighted_sum_kernel-u8-BB64-BD128-SPLIT1024-STEP64-w8": 329,
}
