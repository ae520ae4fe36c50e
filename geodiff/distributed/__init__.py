"""Data that lie on several machines: every rank holds its own rows, and answers are merged by log-sum-exp.

torchrun --nproc-per-node 4 script.py      denoiser = geodiff.distributed.ShardedDenoiser("imagenet64.npy")
"""

from geodiff.base.errors import RankLost
from geodiff.distributed.sharded import ShardedDenoiser

__all__ = ["RankLost", "ShardedDenoiser"]
