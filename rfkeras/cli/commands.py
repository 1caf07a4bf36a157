"""Names of the commands; each has a module of its name, which is imported when it is used."""

COMMANDS = {  # to what the list of commands says of it
    "train": "train a model, evaluate it and export it",
    "launch": "train by several workers on this host",
    "evaluate": "evaluate a model on a data set, or evaluate arrays of scores",
    "tag": "tag audio files",
    "embed": "write what a model's trunk says of audio files",
    "export": "write a model as TFLite, ONNX or SavedModel",
    "convert": "convert a published PyTorch checkpoint",
    "sweep": "train at many receptive fields, with several seeds, and compare",
    "tune": "search for good options with keras-tuner",
    "rf": "show the receptive field of a model",
    "data": "prepare data sets",
    "models": "list the models of the zoo",
}
