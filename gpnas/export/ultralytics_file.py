"""placeholder"""

from gpnas.graph.graph import Graph


def ultralytics_yaml(graph: Graph, source: str) -> str:
    raise NotImplementedError
