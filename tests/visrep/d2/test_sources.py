"""A file of every format, through Detectron2's real FPN and C4 models."""

import pytest

from tests.oracles.detectron2_files import verified
from tests.oracles.mutations import FILES, READERS, write
from visrep.d2.pkl import with_stem_stride
from visrep.weights import read_weights

pytestmark = pytest.mark.detectron2


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind not in READERS])
def test_every_tensor_is_set_and_res2_to_res5_agree(tmp_path, kind):
    file = read_weights(write(kind, tmp_path))
    if file.backbone["stem"].startswith("cifar"):
        file.backbone = with_stem_stride(file.backbone, 2)
    reports = verified(tmp_path, file)
    assert {report.tensors for report in reports.values()} == {len(file.part(""))}
