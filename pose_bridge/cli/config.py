# SPDX-License-Identifier: Apache-2.0
"""`pose_bridge config`, and how settings are read back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from pose_bridge import models
from pose_bridge.cli.failures import reported
from pose_bridge.config import Config, to_yaml
from pose_bridge.errors import ConfigError, StorageError

# Options of the commands that ask the bridge.
File = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Settings, as `pose_bridge config` writes them.")
]
Profile = Annotated[
    str, typer.Option(metavar="NAME", help="Which models to use: one of `pose_bridge models list`.")
]


def config(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only what this profile sets (`pose_bridge models list`)."),
    ] = None,
) -> None:
    """Print every setting with its default, its range and what it means, as YAML for `estimate --config`."""
    with reported():
        text = to_yaml(Config()) if profile is None else models.to_yaml(profile)
        if output is None:
            typer.echo(text, nl=False)
        else:
            _write(text, output, force)


def load(path: Path | None, profile: str = "real") -> Config:
    """Read settings from YAML; what it does not name is as the profile has it.

    Raises:
        ConfigError: Missing, not YAML, an unknown key, or a value out of range; the message names the file.
            Or no profile of that name.
    """
    basis = models.profile(profile).settings
    if path is None:
        return models.configured(basis)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if values is None:
            return models.configured(basis)
        if not isinstance(values, dict):
            raise ConfigError(f"must hold groups of settings, got {values!r}; see `pose_bridge config`")
        return models.configured(basis, values)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: there is no such file; `pose_bridge config -o {path}` writes one"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML ({error})") from error
    except (ConfigError, TypeError) as error:  # TypeError: keys of several types, which cannot be ordered
        raise ConfigError(f"{path}: {error}") from error


def _write(text: str, path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise StorageError(f"{path} exists; add --force to overwrite it")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write {path} ({error.strerror}); choose a folder that can be written"
        ) from error
