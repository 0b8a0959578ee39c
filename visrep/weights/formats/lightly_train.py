"""lightly-train: its Lightning checkpoints (`.ckpt`), and state dicts that it exports.

A `.ckpt` has, beside Lightning's parts, `lightly_train` with the mean and standard deviation of the
input and three whole pickled modules, which stay records. Its state dict holds the method: an
embedding model is a wrapped model, torchvision's ResNet without `fc` under `_features` (timm's
whole under `_model`), and a 1x1 convolution `embed_head` or nothing. Exported alone, the wrapped
model begins with `_features.` and the embedding model with `wrapped_model._features.`.

The default export, `exported_last.pt`, is torchvision's own state dict with an `fc` that was never
trained; nothing tells it from a classifier, so it is read as torchvision's.
"""

import re
from collections.abc import Collection

from visrep.data.preprocess import Preprocess
from visrep.errors import UserError
from visrep.weights.containers.tree import Tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice, ForeignTensors, encoder_file, pick, unwrap

NAME = "lightly-train"

# A method's encoders, first the one that lightly-train exports; the first row that is there.
_DINO = {"teacher": "teacher_embedding_model.", "student": "student_embedding_model."}
_ENCODERS = (
    {"student": "student_embedding_model."},  # distillation
    {"query": "query_encoder.embedding_model.", "key": "key_encoder.embedding_model."},  # DenseCL
    {"online": "embedding_model.", "momentum": "embedding_model_momentum."},  # DetCon
    {"": "embedding_model."},
    {"": ""},  # exported
)
_HEADS = {  # on the embedding; of the others, DINO's has GELUs and distillation's is the teacher's
    "embedding_model.": "projection_head.",
    "embedding_model_momentum.": "projection_head_momentum.",
    "query_encoder.embedding_model.": "query_encoder.global_projection_head.",
    "key_encoder.embedding_model.": "key_encoder.global_projection_head.",
}
_NETS = ("_features.", "_model.", "wrapped_model._features.", "wrapped_model._model.")
_GROUPS = {
    "tensors of the teacher": r"teacher_embedding_model\.",
    "tensors of further heads": r"(\w+\.)?(\w+_)?head(_\w+)?\.",
    "tensors of the loss and its memory": r"(\w+_)?(criterion|loss)\.|memory_bank\.|teacher_queue$",
}


def recognise(tree: Tree) -> bool:
    return _row(unwrap(tree, "state_dict")[0].keys()) is not None


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError, see `encoder_file`; or its mean and std are none."""
    tensors, place = unwrap(tree, "state_dict")
    row = _row(tensors.keys())
    assert row is not None  # `recognise` has seen it
    encoder, prefix, others = pick(row, choice)
    foreign = ForeignTensors(tree, tensors)
    net = _net(prefix, tensors.keys())
    foreign.drop("tensors of a classifier that was not trained", re.escape(f"{net}fc."))
    backbone = foreign.take(net)
    projection = foreign.take(f"{_HEADS[prefix]}layers.") if prefix in _HEADS else {}
    head = foreign.head(projection, after=foreign.take(f"{prefix}embed_head."))
    for other in others:
        foreign.drop(f"tensors of the {other} encoder", re.escape(row[other]))
    for group, pattern in _GROUPS.items():
        foreign.drop(group, pattern)
    return encoder_file(
        foreign,
        backbone,
        choice=choice,
        head=head,
        preprocess=_preprocess(tree),
        encoder=encoder,
        alternatives=others,
        source={"format": NAME, **place},
    )


def _row(names: Collection[str]) -> dict[str, str] | None:
    dino = any(name.startswith(("teacher_projection_head.", "teacher_head.")) for name in names)
    rows = (_DINO, *_ENCODERS) if dino else _ENCODERS
    return next((row for row in rows if all(_net(p, names) for p in row.values())), None)


def _net(prefix: str, names: Collection[str]) -> str:
    """The prefix of the ResNet in the embedding model `prefix`; '' if there is none."""
    nets = (f"{prefix}{net}" for net in _NETS)
    return next((net for net in nets if f"{net}layer1.0.conv1.weight" in names), "")


def _preprocess(tree: Tree) -> Preprocess | None:
    """What `lightly_train.normalize_args` says; None in an exported file."""
    if "lightly_train" not in tree.value:
        return None
    try:
        given = tree.value["lightly_train"]["normalize_args"]
        return Preprocess(size=224, resize=256, mean=given["mean"], std=given["std"])
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{tree.path}: its lightly_train.normalize_args has no mean and std") from (
            error
        )
