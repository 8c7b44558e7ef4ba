# SPDX-License-Identifier: Apache-2.0
"""The library and its command line for pip. Tool settings are in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    name="pose_bridge",
    version="0.1.0",
    description="The relative pose of two camera views with little or no overlap, and a clear no when unsure",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["pose_bridge*"]),
    package_data={"pose_bridge": ["py.typed", "**/*.json", "**/*.safetensors", "**/*.md"]},
    zip_safe=False,
    install_requires=[
        "matplotlib>=3.6",
        "numpy>=1.21",
        "opencv-python-headless>=4.5",
        "pillow>=9.0",
        "pycolmap>=4.2,<4.3",  # estimators/bundle.py rests on conventions that were measured on 4.2
        "pyyaml>=5.4",
        "rich>=12.0",
        "scipy>=1.8",
        "typer>=0.12.4",
    ],
    extras_require={
        "learned": [
            "accelerate>=1.0",
            "diffusers>=0.36",
            "huggingface_hub>=0.34",
            "safetensors>=0.4.3",
            "sentencepiece>=0.2",
            "torch>=2.4",
            "transformers>=4.48",
        ],
        "train": ["pose_bridge[learned]", "torch>=2.13", "tensorboard>=2.15"],
        "test": ["hypothesis>=6.80", "pytest>=8.0", "pytest-timeout>=2.2", "pytest-xdist>=3.7"],
        "dev": ["mypy>=1.10", "pre-commit>=3.5", "ruff>=0.9", "types-PyYAML"],
    },
    entry_points={"console_scripts": ["pose_bridge = pose_bridge.cli.main:main"]},
)
