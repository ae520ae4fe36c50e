"""What one rank of the tests does: python one_rank.py TASK RANK SIZE FOLDER. Asks come from FOLDER/asked.pt."""

import datetime
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from geodiff.base.posterior import Posterior
from geodiff.denoiser.nearest import nearest_two
from geodiff.distributed import ShardedDenoiser

#: Ranks of each group whose answers are compared, by name; the two of four ask for half of the batch each.
GROUPS = {"two": [0, 1], "four": [2, 3, 4, 5], "eight": list(range(8)), "half 0": [0, 1], "half 1": [2, 3]}


def part_of(values, group):
    """A group's share of all rows: unequal ones, to let nothing depend on equal sizes."""
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    bounds = [len(values) * k * (k + 2) // (size * (size + 2)) for k in range(size + 1)]
    return None if values is None else values[bounds[rank] : bounds[rank + 1]]


def fields(denoiser, x, sigma, conditions):
    """All that a denoiser says of a batch."""
    found: Posterior = denoiser.posterior(x, sigma, topk=7, **conditions)
    names = ("mean", "log_prob", "entropy", "ess", "indices", "weights", "trace")
    out = {name: getattr(found, name) for name in names}
    out["covariance"] = found.covariance(torch.ones_like(x))
    out["draws"] = found.sample(50, generator=torch.Generator().manual_seed(3 + dist.get_rank()))
    out["forward"] = denoiser(x, sigma, **conditions)
    out["nearest"], _ = nearest_two(denoiser, x)
    followed = x.clone().requires_grad_()
    denoiser.log_prob(followed, sigma, **conditions).sum().backward()
    out["gradient"] = followed.grad
    return out


def main(task, rank, size, folder):
    torch.set_num_threads(1)
    asked = torch.load(folder / "asked.pt")
    # The store lives in a process of its own: a rank that is killed must not take it along.
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=asked.get("timeout", 60)),
    )
    if task == "compare":
        groups = {name: dist.new_group(ranks) for name, ranks in GROUPS.items()}
        answers = {}
        for name, ranks in GROUPS.items():
            if rank not in ranks:
                continue
            for case, (data, keywords, asks) in asked["cases"].items():
                if name.startswith("half") and case != "few":
                    continue
                more = {key: part_of(v, groups[name]) if torch.is_tensor(v) else v for key, v in keywords.items()}
                denoiser = ShardedDenoiser(part_of(data, groups[name]), groups[name], **more)
                for number, (x, sigma, conditions) in enumerate(asks):
                    if name.startswith("half"):
                        mine = slice(None, len(x) // 2) if name.endswith("0") else slice(len(x) // 2, None)
                        x, conditions = x[mine], {key: value[mine] for key, value in conditions.items()}
                    answers[name, case, number] = fields(denoiser, x, sigma, conditions)
        torch.save(answers, folder / f"answers{rank}.pt")
    elif task == "fault":
        data = asked["data"].clone()
        if rank == 1:
            data[3] = float("nan")
        ShardedDenoiser(data)
    elif task == "no weight":
        ShardedDenoiser(asked["data"], log_weights=torch.full((len(asked["data"]),), -torch.inf))
    elif task == "others":
        ShardedDenoiser(asked["data"])(asked["data"][:2] + rank, 1.0)
    elif task == "until killed":
        denoiser = ShardedDenoiser(asked["data"])
        (folder / f"ready{rank}").touch()
        while True:
            denoiser(asked["data"][:2], 1.0)
    dist.destroy_process_group()


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
