"""What evaluations along a trajectory remember, part by part of the batch."""

from geodiff.backends import Engine, Query


class Memories:
    """The memories of one trajectory: of an engine, for the queries that see the same rows."""

    def __init__(self) -> None:
        self._kept: dict[tuple[range, int], tuple[Engine, object]] = {}

    def of(self, engine: Engine, query: Query) -> object:
        """That of the engine, for a query of the same conditions as before: a new one where the engine is another.

        An engine is opened anew when its rows are written to.
        """
        key = query.rows, len(query)
        known, memory = self._kept.get(key, (None, None))
        if known is not engine:
            memory = engine.memory(len(query))
            self._kept[key] = engine, memory
        return memory
