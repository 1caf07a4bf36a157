"""The rfkeras package: library (`rfkeras`), model zoo (`zoo`) and the `rfkeras` command."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "rfkeras/__init__.py").read_text(encoding="utf-8"), re.M
)[1]

# A library states ranges; requirements/*.lock pin what the tests run with. docs/versions.md
# shows which versions were tested together.
TAGGING = [  # without TensorFlow: `rfkeras tag`, `embed`, `find`, `similar`
    "numpy>=1.26,<3",
    "soundfile>=0.12.1",  # the first whose libsndfile reads MP3 and Opus
    "av>=18",  # FFmpeg: MP3, Ogg, Opus, M4A, WMA, WavPack
    "soxr>=0.3.7",
    "onnxruntime>=1.21",  # runs the pretrained weights without TensorFlow's start
    "rich>=13",
    "platformdirs>=4",
    "filelock>=3.13",
]
INSTALL_REQUIRES = [
    *TAGGING,
    "tensorflow>=2.16.2,<2.21",
    "keras>=3.11,<3.14",  # kapre 0.4.1 needs keras < 3.14
    "kapre>=0.4.1,<0.5",
    "keras-tuner>=1.4.7,<1.5",  # experiments/oracle.py mends faults of 1.4
    "scikit-learn>=1.4",
    "scipy>=1.11",
    "matplotlib>=3.8",
    "pyyaml>=6",
    "pretty_midi>=0.2.11,<0.3",  # the built-in data set is a function of its sound font
    # and of this renderer: 0.1.0 to 0.1.3 render the same bytes. Its wheels for Linux on ARM
    # need glibc 2.34, which a marker cannot ask for.
    "midirenderer>=0.1.0,<0.2; platform_system != 'Linux' or platform_machine == 'x86_64'",
]

# The native part of tensorflow-io 0.37.1, the last version, loads with TensorFlow 2.16 only.
# It has no wheels for Windows; neither has wheels for Python 3.13.
TFIO = [
    "tensorflow==2.16.2; python_version < '3.13'",
    "tensorflow-io==0.37.1; platform_system != 'Windows' and python_version < '3.13'",
]
ONNX = ["onnx>=1.16", "tf2onnx>=1.17"]
PARQUET = ["pyarrow>=15"]
BEAM = ["apache-beam>=2.70"]
TAGS = ["mutagen>=1.47"]  # GPL-2.0-or-later
HUB = ["huggingface_hub>=0.30"]  # hf://USER/NAME and `rfkeras push`
REMOTE = [  # s3://, gs://, az://, hdfs:// and http(s)://
    "fsspec>=2024.6",
    "s3fs>=2024.6",
    "gcsfs>=2024.6",
    "adlfs>=2024.4",
    "aiohttp>=3.9",
]
DATASETS = ["mirdata>=1", "soundata>=1.0.1"]  # `rfkeras data download`, --dataset mirdata:NAME
SERVING = ["tensorflow-serving-api>=2.16.1,<2.21"]
DOCS = [
    "mkdocs>=1.6,<2",
    "mkdocs-material>=9.5",
    "mkdocstrings[python]>=0.26",
    "mkdocs-jupyter>=0.25",
    "nbclient>=0.10",
    "ipykernel>=6",
]
EXTRAS_REQUIRE = {
    # The packages of CUDA exist for Linux only.
    "gpu": ["tensorflow[and-cuda]>=2.16.2,<2.21; platform_system == 'Linux'"],
    "tfio": TFIO,  # shards read by tensorflow-io, and --decoder tfio
    "torch": ["torch>=2.6"],  # reading .pth checkpoints; 2.6 made weights_only the default
    "serving": SERVING,  # warm-up requests, the gRPC client
    "onnx": ONNX,
    "parquet": PARQUET,
    "tags": TAGS,  # `rfkeras tag --write-tags`
    "hub": HUB,
    "remote": REMOTE,
    "datasets": DATASETS,
    "beam": BEAM,  # bulk work: `rfkeras data pack` and `rfkeras tag` as pipelines
    "docs": DOCS,
    "dev": [
        *ONNX,
        *PARQUET,
        *TAGS,
        *HUB,
        *BEAM,
        *REMOTE[:2],  # those for Azure and Google do not fit the default set
        "aiohttp>=3.9",
        *DATASETS,
        *DOCS,
        *SERVING,
        "pytest>=8",
        "pytest-xdist>=3.8",
        "pytest-timeout>=2.3",
        "ruff>=0.6",
        "mypy>=1.11",
        "types-PyYAML",
        "hypothesis>=6.100",
        "atheris>=2.3; platform_system == 'Linux' and platform_machine == 'x86_64'",
        "cyclonedx-bom>=7",  # the software bill of materials
        "moto[s3]>=5",
        "flask>=3",  # moto as a server
        "flask-cors>=5",
        "librosa>=0.10",
        "jams>=0.3.5",  # these read what `rfkeras tag` writes
        "mir_eval>=0.8",
        "optuna>=4",  # these run in the examples of docs/your_own.md
        "wandb>=0.19,<0.29",  # newer ones need packages of OpenTelemetry
    ],
}

# The same sources as a second distribution, for those who only tag: install one of the two.
#     RFKERAS_DISTRIBUTION=rfkeras-tag pip install .
# Turned-round extras (rfkeras[training]) would make `pip install rfkeras` incomplete instead.
DISTRIBUTIONS = {
    "rfkeras": (INSTALL_REQUIRES, EXTRAS_REQUIRE),
    "rfkeras-tag": (TAGGING, {"remote": REMOTE, "tags": TAGS, "hub": HUB, "parquet": PARQUET}),
}
NAME = os.environ.get("RFKERAS_DISTRIBUTION", "rfkeras")
install_requires, extras_require = DISTRIBUTIONS[NAME]
# Only `rfkeras export --to web` needs it (2.3 MB).
RUNTIME = ["inference/pages/onnxruntime-web/*"] if NAME == "rfkeras" else []

setup(
    name=NAME,
    version=VERSION,
    description=(
        "Receptive-field-regularised CNNs for music classification and tagging, in Keras"
    ),
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["rfkeras", "rfkeras.*", "zoo", "zoo.*"]),
    package_data={
        "rfkeras": ["py.typed", "inference/pages/*", *RUNTIME],
        "zoo": ["py.typed", "recipes/*.yaml", "weights/*"],
    },
    install_requires=install_requires,
    extras_require=extras_require,
    entry_points={"console_scripts": ["rfkeras=rfkeras.cli.main:main"]},
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Analysis",
    ],
)
