"""The rfkeras package: library (`rfkeras`), model zoo (`zoo`) and the `rfkeras` command."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "rfkeras/__init__.py").read_text(encoding="utf-8"), re.M
)[1]

# tensorflow-io's native part loads with TensorFlow 2.16 only, and kapre 0.4.1 needs
# keras < 3.14: this is the one set of versions in which all of them work together.
INSTALL_REQUIRES = [
    "tensorflow==2.16.2",
    "keras==3.13.2",
    "kapre==0.4.1",
    "tensorflow-io==0.37.1; platform_system != 'Windows'",  # no wheels there
    "keras-tuner==1.4.8",  # tuning/oracle.py mends faults of this version
    "numpy>=1.26,<2",  # TensorFlow 2.16 is built against NumPy 1
    "scikit-learn>=1.4",
    "soundfile>=0.12.1",  # the first whose libsndfile reads MP3 and Opus
    "av>=16",  # FFmpeg: MP3, Ogg, Opus, M4A, WMA, WavPack
    "soxr>=0.3.7",
    "matplotlib>=3.8",
    "rich>=13",
    "pyyaml>=6",
    "platformdirs>=4",
    "filelock>=3.13",
    "pretty_midi==0.2.11",  # the built-in data set is a function of its sound font
    # and of this renderer, which has no wheels for Linux on ARM
    "midirenderer==0.1.3; platform_system != 'Linux' or platform_machine == 'x86_64'",
    "setuptools<81",  # pretty_midi and tensorboard import pkg_resources
]

ONNX = [
    "onnx==1.17.0",
    "tf2onnx==1.17.0",
    "onnxruntime>=1.18",
]  # a newer onnx drops what tf2onnx uses
PARQUET = ["pyarrow>=15,<18"]  # newer ones want NumPy 2
BEAM = ["apache-beam==2.77.0"]  # resolves beside TensorFlow 2.16's NumPy and protobuf
DOCS = [
    "mkdocs>=1.6,<2",
    "mkdocs-material>=9.5",
    "mkdocstrings[python]>=0.26",
    "mkdocs-jupyter>=0.25",
    "nbclient>=0.10",
    "ipykernel>=6",
]
EXTRAS_REQUIRE = {
    "gpu": ["tensorflow[and-cuda]==2.16.2"],
    "torch": ["torch>=2.6"],  # reading .pth checkpoints; 2.6 made weights_only the default
    "serving": ["tensorflow-serving-api==2.16.1"],  # warm-up requests, the gRPC client
    "onnx": ONNX,
    "parquet": PARQUET,
    "beam": BEAM,  # bulk work: `rfkeras data pack` and `rfkeras tag` as pipelines
    "docs": DOCS,
    "dev": [
        *ONNX,
        *PARQUET,
        *BEAM,
        *DOCS,
        "tensorflow-serving-api==2.16.1",
        "pytest>=8",
        "pytest-xdist>=3.7",
        "pytest-timeout>=2.3",
        "ruff>=0.6",
        "mypy>=1.11",
        "types-PyYAML",
        "hypothesis>=6.100",
        "atheris>=2.3",
        "cyclonedx-bom>=7",  # the software bill of materials
        "moto[s3]>=5",
        "flask>=3",  # moto as a server
        "flask-cors>=5",
        "librosa>=0.10",
    ],
}

setup(
    name="rfkeras",
    version=VERSION,
    description=(
        "Receptive-field-regularised CNNs for music classification and tagging, in Keras"
    ),
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["rfkeras", "rfkeras.*", "zoo", "zoo.*"]),
    package_data={"rfkeras": ["py.typed"], "zoo": ["py.typed", "recipes/*.yaml", "weights/*"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["rfkeras=rfkeras.cli.main:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Multimedia :: Sound/Audio :: Analysis",
    ],
)
