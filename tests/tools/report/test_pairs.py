"""A student beside its teacher."""

from visrep.tools.report import pairs, runs


def test_pairs_join_exports_by_hash(chain):
    (pair,) = pairs.pairs(runs.collect(chain))
    assert (pair.student.parameters, pair.student.bytes) == (175_000, 700_000)
    assert pair.student.onnx_bytes == 875_000
    assert pair.teacher.latency_ms == {"onnxruntime": 0.4}
    assert pair.teacher.top1.mean == 83.0 and pair.student.top1.mean == 82.5
