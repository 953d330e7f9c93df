"""Package metadata; tool settings live in pyproject.toml.

Torch and Megatron are no hard dependency: GPU images bring their own, and `status` runs on login nodes
that have neither.
"""

from pathlib import Path

from setuptools import find_packages, setup

MEGATRON = ["torch>=2.6", "megatron-core[training]>=0.17; python_version >= '3.12'"]

setup(
    name="megatron_resume",
    version="0.1.0",
    description="Automatic, exact resume of RLHF training on stock Megatron-LM",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["megatron_resume", "megatron_resume.*"]),
    package_data={"megatron_resume": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        "msgspec>=0.18",
        "numpy>=1.24",
        "pyyaml>=6.0",
        "rich>=13.0",
        "safetensors>=0.4",
    ],
    extras_require={
        "megatron": MEGATRON,
        "gpu": ["transformer-engine[pytorch]"],
        "report": ["matplotlib>=3.8"],
        "dev": [
            "hypothesis",
            "matplotlib",
            "mypy",
            "pytest",
            "pytest-xdist",
            "ruff",
            "tensorboard",
            "torchdata",
            "transformers",
            "types-PyYAML",
        ],
    },
    entry_points={"console_scripts": ["megatron-resume = megatron_resume.cli:main"]},
)
