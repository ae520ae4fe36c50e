"""Instructions of the loop with the tensor-core products on sm_90, by variant of `test_compiled.py`, uint8 data.

As Triton 3.9 compiles them: other versions are free to differ. To renew: what a failing test says.
"""

TRITON = "3.9"

LOOPS = {
    "logits_bytes-u8-BN128-BB16-BD128-PARTS2-LONG0-BIAS0-w4": 194,
    "logits_bytes-u8-BN128-BB16-BD128-PARTS3-LONG0-BIAS1-w4": 220,
    "logits_bytes-u8-BN128-BB16-BD128-PARTS4-LONG0-BIAS2-w4": 246,
    "logits_bytes-u8-BN128-BB16-BD128-PARTS4-LONG1-BIAS0-w4": 422,
    "logits_bytes-u8-BN128-BB32-BD64-PARTS2-LONG0-BIAS0-w8": 100,
    "logits_bytes-u8-BN128-BB32-BD64-PARTS3-LONG0-BIAS1-w8": 120,
    "logits_bytes-u8-BN128-BB32-BD64-PARTS4-LONG0-BIAS2-w8": 148,
    "logits_bytes-u8-BN128-BB32-BD64-PARTS4-LONG1-BIAS0-w8": 272,
    "logits_bytes-u8-BN128-BB64-BD128-PARTS2-LONG0-BIAS0-w8": 146,
    "logits_bytes-u8-BN128-BB64-BD128-PARTS3-LONG0-BIAS1-w8": 180,
    "logits_bytes-u8-BN128-BB64-BD128-PARTS4-LONG0-BIAS2-w8": 210,
    "logits_bytes-u8-BN128-BB64-BD128-PARTS4-LONG1-BIAS0-w8": 475,
    "weighted_sum_kernel-u8-BB16-BD128-SPLIT1024-STEP64-w4": 445,
    "weighted_sum_kernel-u8-BB64-BD64-SPLIT1024-STEP64-w4": 288,
    "weighted_sum_kernel-u8-BB64-BD128-SPLIT1024-STEP64-w8": 345,
}
