"""Instructions of the loop with the tensor-core products on sm_90, by variant of `test_compiled.py`, uint8 data.

As Triton 3.9 compiles them: other versions are free to differ. To renew: what a failing test says.
"""

TRITON = "3.9"

LOOPS = {
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
