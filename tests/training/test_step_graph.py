"""What would slow a step down without changing its result: tracing again, leaving the graph."""

import pytest
import tensorflow as tf

from tests.training.small_tagger import batch, everything

ON_THE_HOST = ("PyFunc", "EagerPyFunc", "PyFuncStateless", "Print", "PrintV2")


@pytest.mark.parametrize("jit", [False, True])
def test_a_step_is_traced_once_and_stays_in_the_graph(jit):
    model = everything(jit=jit)
    traced = []
    prepare = model.prepare
    model.prepare = lambda *data: traced.append(1) or prepare(*data)
    batches = tf.data.Dataset.from_tensors(batch()).repeat()
    # As training does it: an epoch's rest, then the others, in calls of their own.
    model.fit(batches, steps_per_epoch=2, epochs=1, verbose=0)
    model.average_epoch()
    model.fit(batches, steps_per_epoch=3, initial_epoch=1, epochs=3, verbose=0)
    steps = int(model.optimizer.iterations.numpy())
    assert steps == 8
    assert len(traced) == 1

    waveform, labels, mask = batch()
    step = tf.function(lambda: model.train_step((waveform, labels, mask)))
    graph = step.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    assert any(node.op == "Conv2DBackpropFilter" for node in nodes)
    assert not [node.name for node in nodes if node.op in ON_THE_HOST]
