"""Ctrl-C ends a call of the kernel within a second, and the denoiser goes on."""

import pytest

from tests.processes import run

CODE = """
    import os, signal, sys, threading, time, torch, geodiff
    what, sigma = sys.argv[1], float(sys.argv[2])
    torch.manual_seed(0)
    n, d, batch = 20_000, 1024, 2048
    data, x = torch.randint(0, 256, (n, d), dtype=torch.uint8), sigma * torch.randn(batch, d)
    denoiser = geodiff.OptimalDenoiser(data)
    calls = {
        "call": lambda: denoiser(x, sigma),
        "posterior": lambda: denoiser.posterior(x, sigma, topk=5),
        "draw": lambda: denoiser.posterior(x[:8], sigma).sample(3),
        "covariance": lambda: denoiser.posterior(x, sigma).covariance(x),
    }
    sent = []
    def stop():
        sent.append(time.monotonic()); os.kill(os.getpid(), signal.SIGINT)
    threading.Timer(0.4, stop).start()
    try:
        while time.monotonic() < 1e12:
            calls[what]()
    except KeyboardInterrupt:
        print(time.monotonic() - sent[0])
    before = denoiser(x[:3], sigma)
    assert torch.equal(before, geodiff.OptimalDenoiser(data)(x[:3], sigma))
"""


@pytest.mark.parametrize("what", ["call", "posterior", "draw", "covariance"])
@pytest.mark.parametrize("sigma", [0.5, 40.0])
def test_ctrl_c_ends_a_call(what: str, sigma: float) -> None:
    done = run(what, sigma, code=CODE)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.0
