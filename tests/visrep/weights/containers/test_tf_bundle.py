"""TensorFlow's bundles: what a file says is what is read, and damage is one line."""

import numpy as np
import pytest
import torch

from tests.oracles.checkpoints import tf
from visrep.errors import UserError
from visrep.weights import read_weights
from visrep.weights.containers.tf_bundle import find_bundle, masked_crc32c, read_bundle


def some(count: int = 120) -> dict[str, np.ndarray]:
    r = np.random.default_rng(0)
    values = {f"a/v_{i}": r.standard_normal((i % 5, 3)).astype("f4") for i in range(count)}
    values |= {"step": np.array(7, np.int64), "half": r.standard_normal(9).astype("f2")}
    return values | {"b/i": np.arange(8, dtype=np.int32).reshape(4, 2), "d": r.standard_normal(2)}


@pytest.mark.parametrize(
    ("data", "masked"),
    [
        (b"123456789", 0xC78AB0E5),
        (bytes(32), 0x0FD7FFFA),
        (b"a", 0x28E46E78),
        (b"", 0xA282EAD8),
    ],
)
def test_checksum_of_known_answers(data, masked):
    assert masked_crc32c(data) == masked


def test_checksum_of_more_than_a_part():
    data = np.random.default_rng(0).bytes((1 << 20) + 5)
    assert masked_crc32c(data) == tf.masked(data)


@pytest.mark.parametrize("shards", [1, 3])
def test_every_variable_of_every_shard(tmp_path, shards):
    values = some()
    tree = read_bundle(tf.write_bundle(tmp_path / "model.ckpt-7", values, shards=shards))
    assert tree.value.keys() == values.keys()
    for name, array in values.items():
        stored = tree.value[name]
        assert stored.shape == array.shape
        assert torch.equal(stored.read(), torch.from_numpy(array))
    assert tree.size == sum(array.nbytes for array in values.values())


def test_half_precision_of_google(tmp_path):
    numbers = torch.tensor([1.5, -2.0, 3.25], dtype=torch.bfloat16)
    raw = numbers.view(torch.uint8).numpy().tobytes()
    prefix = tf.write_bundle(tmp_path / "m", {"other": np.zeros(1, np.float32)})
    data = prefix.with_name("m.data-00000-of-00001")
    data.write_bytes(data.read_bytes() + raw)
    more = {b"x": tf.entry(np.zeros(3, np.float32), offset=4, data=raw, kind=14)}
    index = tf.table({b"": tf.message((1, 1)), **more})
    prefix.with_name("m.index").write_bytes(index)
    assert torch.equal(read_bundle(prefix).value["x"].read(), numbers)


def test_numbers_of_a_big_endian_machine(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    header = tf.message((1, 1), (2, 1))
    prefix = tf.write_bundle(tmp_path / "m", {"x": array.byteswap()}, header=header)
    assert torch.equal(read_bundle(prefix).value["x"].read(), torch.from_numpy(array))


def test_text_is_named_and_not_read(tmp_path):
    more = {b"words": tf.entry(np.zeros(2, np.float32), data=b"12", kind=7)}
    prefix = tf.write_bundle(tmp_path / "m", {"x": np.zeros(2, np.float32)}, more=more)
    assert read_bundle(prefix).value["words"] == "a variable of TensorFlow's type 7"


def test_every_way_to_name_a_bundle(tmp_path):
    prefix = tf.write_bundle(tmp_path / "model.ckpt-7", some(3), shards=2)
    for name in ("model.ckpt-7", "model.ckpt-7.index", "model.ckpt-7.data-00001-of-00002"):
        assert find_bundle(tmp_path / name) == prefix
    assert find_bundle(tmp_path) == prefix
    assert find_bundle(tmp_path / "model.ckpt-8") is None
    assert find_bundle(tmp_path / "other.pth") is None


def test_the_note_in_a_folder_tells_which(tmp_path):
    for step in (7, 9):
        tf.write_bundle(tmp_path / f"model.ckpt-{step}", some(1))
    with pytest.raises(UserError, match="holds 2 checkpoints, model.ckpt-7, model.ckpt-9"):
        find_bundle(tmp_path)
    note = tmp_path / "checkpoint"
    note.write_text('model_checkpoint_path: "/cns/home/someone/model.ckpt-9"\n')
    assert find_bundle(tmp_path) == tmp_path / "model.ckpt-9"
    note.write_text('model_checkpoint_path: "model.ckpt-11"\n')
    with pytest.raises(UserError, match="names model.ckpt-11, but there is no model.ckpt-11.index"):
        find_bundle(tmp_path)


def test_what_is_no_bundle(tmp_path):
    assert find_bundle(tmp_path) is None
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"1234")
    with pytest.raises(UserError, match="put m.index beside it"):
        find_bundle(tmp_path / "m.data-00000-of-00001")
    (tmp_path / "saved_model.pb").write_bytes(b"1234")
    with pytest.raises(UserError, match="holds a SavedModel: visrep reads TensorFlow 1"):
        find_bundle(tmp_path)


def refused(prefix) -> str:
    with pytest.raises(UserError) as caught:
        for value in read_bundle(prefix).value.values():
            value.read()
    message = str(caught.value)
    assert "\n" not in message
    assert "m.index" in message
    return message


def test_parts_that_are_missing(tmp_path):
    prefix = tf.write_bundle(tmp_path / "m", some(3), shards=2)
    prefix.with_name("m.data-00001-of-00002").unlink()
    assert "m.data-00001-of-00002 beside it, which is not there" in refused(prefix)
    tf.write_bundle(prefix, some(3))
    prefix.with_name("m.data-00000-of-00001").write_bytes(b"")
    assert "beyond the end of its data file" in refused(prefix)


def test_what_tensorflow_2_writes(tmp_path):
    more = {b"_CHECKPOINTABLE_OBJECT_GRAPH": tf.entry(np.zeros(2), data=b"12", kind=7)}
    prefix = tf.write_bundle(tmp_path / "m", some(1), more=more)
    assert "is an object checkpoint of TensorFlow 2" in refused(prefix)


def test_slices_and_packing(tmp_path):
    more = {b"part": tf.message((1, 1), (7, b"\x0a\x00"))}
    assert "part is stored in slices" in refused(tf.write_bundle(tmp_path / "m", {}, more=more))
    assert "is packed (snappy)" in refused(tf.write_bundle(tmp_path / "m", some(1), kind=1))


@pytest.mark.parametrize(
    ("fields", "clause"),
    [
        ([(1, 1), (2, tf.message((2, tf.message((1, 2**63))))), (5, 4)], "no possible shape"),
        ([(1, 1), (2, tf.message((2, tf.message((1, 5))))), (5, 4)], "which is not its shape"),
        ([(1, 1), (3, 1), (5, 4)], "lies beyond the end"),
        ([(1, 1), (4, 2**40), (5, 4)], "lies beyond the end"),
        ([(1, 1), (2, 3), (5, 4)], "damaged"),
        ([(1, b"x")], None),
    ],
)
def test_entries_that_lie(tmp_path, fields, clause):
    values = {"x": np.zeros(2, np.float32)}
    prefix = tf.write_bundle(tmp_path / "m", values, more={b"y": tf.message(*fields)})
    if clause is None:
        assert read_bundle(prefix).value["y"].startswith("a variable of TensorFlow's type")
    else:
        assert clause in refused(prefix)


def test_entries_that_share_their_numbers(tmp_path):
    array = np.zeros(2, np.float32)
    more = {f"y{i}".encode(): tf.entry(array, data=bytes(8)) for i in range(5)}
    prefix = tf.write_bundle(tmp_path / "m", {"x": array}, more=more)
    assert "more numbers than its data files" in refused(prefix)


def test_a_changed_number_is_found(tmp_path):
    values = {"x": np.arange(4, dtype=np.float32)}
    prefix = tf.write_bundle(tmp_path / "m", values)
    data = prefix.with_name("m.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match="does not agree with its checksum"):
        read_bundle(prefix).value["x"].read()


def test_damage_anywhere_in_an_index_is_an_error(tmp_path):
    """Its blocks carry checksums, so that a changed byte must lie in the rest: the footer."""
    prefix = tf.write_bundle(tmp_path / "m", some(60))
    index = prefix.with_name("m.index")
    whole = index.read_bytes()
    unused = 0
    for at in [*range(0, len(whole) - 60, 97), *range(len(whole) - 60, len(whole))]:
        for bit in (0, 7):
            changed = bytearray(whole)
            changed[at] ^= 1 << bit
            index.write_bytes(changed)
            try:
                read_bundle(prefix)
                unused += 1
            except UserError as error:
                assert str(index) in str(error)
    assert unused <= 2 * 60  # of the footer's filling and its empty metaindex
    for size in range(0, len(whole), 53):
        index.write_bytes(whole[:size])
        refused(prefix)


def test_a_number_in_the_wrong_place_is_no_name(tmp_path):
    prefix = tf.write_bundle(tmp_path / "m", {}, more={b"\xff\xfe": tf.message((1, 1))})
    assert "damaged" in refused(prefix)
    tf.write_bundle(prefix, {}, header=tf.message((1, 20_000)))
    assert "20000 data files" in refused(prefix)
    prefix.with_name("m.index").write_bytes(b"no table" * 9)
    assert "does not end as a table does" in refused(prefix)


def test_a_bundle_of_something_else_is_described(tmp_path):
    prefix = tf.write_bundle(tmp_path / "m", some(3))
    with pytest.raises(UserError, match="fits none of the known formats"):
        read_weights(prefix)
    with pytest.raises(UserError, match="fits none of the known formats"):
        read_weights(tmp_path)
