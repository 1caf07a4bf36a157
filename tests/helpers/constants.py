"""Read the constants in the graphs of a SavedModel."""

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2


def constants(path):
    """Return the float32 arrays of all functions, in order."""
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((path / "saved_model.pb").read_bytes())
    (graph,) = proto.meta_graphs
    return [
        tf.make_ndarray(node.attr["value"].tensor)
        for function in graph.graph_def.library.function
        for node in function.node_def
        if node.op == "Const" and node.attr["dtype"].type == tf.float32.as_datatype_enum
    ]


def zeros_of_kernels(arrays):
    """Count the zeros in all arrays with four axes."""
    return sum(int((np.asarray(a) == 0).sum()) for a in arrays if np.ndim(a) == 4)
