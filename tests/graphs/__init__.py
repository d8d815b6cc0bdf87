"""Random networks to test against: ``random_graph`` by seed, ``graphs`` as a hypothesis strategy."""

from tests.graphs.network import features, feeds, graphs, random_graph

__all__ = ["features", "feeds", "graphs", "random_graph"]
