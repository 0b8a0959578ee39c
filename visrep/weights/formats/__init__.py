"""The checkpoint formats that `weights=` understands, one module each: adding a format is its file.

A format is a module of this folder, or one that `plugins=` names. It holds

    NAME                       what messages call it, "MoCo"
    recognise(tree) -> bool    whether a file is of it, told from names and metadata alone
    read(tree, choice)         its encoder as an `EncoderFile`, or a `UserError` that says why not

`tree` is the file as `visrep.weights.containers.tree.Tree` describes it, of whatever container, and
`choice` what the user asks for (`visrep.weights.foreign.Choice`). `visrep.weights.foreign` has what
`read` is made of, and `moco` is a short one to begin with. A file must fit exactly one format:
nothing is guessed (`visrep.weights.recognition`).
"""
