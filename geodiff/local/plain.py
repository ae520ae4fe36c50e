"""The formulas as an engine: float64, any device that has it, every form."""

from torch import Tensor

from geodiff.local.engine import LocalAnswer, LocalEngine, LocalQuery
from geodiff.reference import local


class PlainLocalEngine(LocalEngine):
    """Answers with `geodiff.reference.local.posteriors` in float64."""

    @staticmethod
    def missing() -> str:
        return ""

    def serves(self, asked: LocalQuery) -> bool:
        return True

    def answer(self, asked: LocalQuery) -> LocalAnswer:
        query, layout = asked.query, asked.layout
        seen = seen_by(asked, self.rows)
        x = layout.images(query.x.double())
        found = local.posteriors(x, seen, query.sigma, asked.form, details=asked.details)
        if found.variance is None or found.nearest is None:
            return LocalAnswer(layout.rows(found.mean), log_mass=found.log_mass)
        n, total = len(seen.data), len(self.rows)  # rows seen, and all rows: mirror images are numbered behind all
        copies = found.nearest >= n
        nearest = found.nearest + query.rows.start + copies * (total - n)
        return LocalAnswer(layout.rows(found.mean), layout.rows(found.variance), found.ess, nearest, found.log_mass)


def seen_by(asked: LocalQuery, rows: Tensor) -> local.Seen:
    """What the queries see of all rows, as the formulas take it."""
    query = asked.query
    images = asked.layout.images(query.seen(rows))
    return local.Seen(images, query.prior_of_rows, query.excluded_of_rows, asked.mirrored)
