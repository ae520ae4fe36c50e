"""Instructions and tensor-core products of the hot loops of the CUDA core, by kernel and kind of product.

A loop may be unrolled more or less: what is held to is how many instructions stand there for each product. As nvcc 13.0
compiles them: other versions are free to differ. To renew: what a failing test says.
"""

NVCC = "13.0"

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
}
