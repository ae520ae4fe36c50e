"""PCA locality: every number has a posterior of its own, over the inputs that a Wiener filter says count for it."""

from collections.abc import Hashable
from typing import Any

from geodiff.base.arguments import check_number
from geodiff.local.kind import Kind, Settings, Source
from geodiff.reference.forms import Form, Pairs
from geodiff.reference.locality import Spectrum, pca_mask, spectrum


class PcaLocality(Kind):
    """M = 1{|W[n, m] / W[n, n]| >= threshold max}, W the Wiener filter of the data at sigma.

    Lukoianov et al., 2509.09672. W comes from the covariance of all data, with 1 / (N - 1), whatever classes, weights
    and masks say. The eigenvectors, [d, d] float64, are worked out at the first call and kept, as is the last mask.
    """

    def __init__(self, shape: tuple[int, int, int], settings: Settings) -> None:
        self._threshold = check_number(settings.threshold, "threshold", 0.0, 1.0)
        self._temperature = check_number(settings.temperature, "temperature", 0.0)
        self._spectrum: tuple[Hashable, Spectrum] | None = None
        self._last: tuple[Hashable, Form] | None = None

    def key(self, sigma: float) -> Hashable:
        return sigma

    def form(self, key: Hashable, source: Source) -> Form:
        assert isinstance(key, float), "a level is a number"
        if self._spectrum is None or self._spectrum[0] != source.version:
            self._spectrum = source.version, spectrum(source.images, ddof=1, mirrored=source.mirrored)
            self._last = None
        if self._last is None or self._last[0] != key:
            self._last = key, Pairs(pca_mask(self._spectrum[1], key, self._threshold), self._temperature)
        return self._last[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_spectrum": None, "_last": None}  # larger than the data, and soon made again
