"""Instructions and tensor-core products of the hot loops of the CUDA core, by kernel and kind of product.

A loop may be unrolled more or less: what is held to is how many instructions stand there for each product. As nvcc 13.0
compiles them: other versions are free to differ. To renew: what a failing test says.
"""

NVCC = "13.0"

#: What no such loop has: a stack, conflicting additions to shared memory, bytes one by one; nor float64, but where an
#: epoch ends within the loop.
SLOW = r"LDL|STL|ATOMS|LDS\.U8"
FLOAT64 = r"I2F|F2I|D(?:ADD|MUL|FMA)"
EPOCH_ENDS = ("fused.cu",)

#: (source, target) -> kernel -> kind of product -> (instructions, products)
LOOPS = {
    ("stream.cu", "sm_90"): {
        # 32 rows and columns are 4 products for each 4 queries, in both.
        "stream_kernel<1>": {"IMMA.16832.S8.U8": (40, 16), "IMMA.16832.U8.U8": (78, 8)},
        "stream_kernel<4>": {"IMMA.16832.S8.U8": (40, 16), "IMMA.16832.U8.U8": (112, 16)},
    },
    ("dense_logits.cu", "sm_90a"): {
        "logits_kernel<16>": {"IGMMA.64x64x32.U8.S8": (101, 4)},
        "logits_kernel<64>": {"IGMMA.64x256x32.U8.S8": (112, 4)},
    },
    ("dense_sums.cu", "sm_90a"): {
        "sums_kernel<16>": {"IGMMA.64x32x32.S8.U8": (204, 8)},
        "sums_kernel<64>": {"IGMMA.64x128x32.S8.U8": (213, 8)},
    },
    ("fused.cu", "sm_90a"): {
        # Of both warpgroups that add up, each; with what an epoch's end takes, beside which they are 444, 283 and 221.
        "fused_kernel<4>": {"IGMMA.64x16x32.U8.S8": (154, 12), "IGMMA.64x16x32.U8.U8": (1114, 24)},
        "fused_kernel<8>": {"IGMMA.64x32x32.U8.S8": (449, 24), "IGMMA.64x32x32.U8.U8": (1034, 12)},
        "fused_kernel<16>": {"IGMMA.64x64x32.U8.S8": (419, 12), "IGMMA.64x64x32.U8.U8": (1119, 6)},
    },
}
