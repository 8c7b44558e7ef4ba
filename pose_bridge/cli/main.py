# SPDX-License-Identifier: Apache-2.0
"""The command `pose_bridge`."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from pose_bridge.cli import config, estimate, evaluate, models, pairs

app = typer.Typer(
    name="pose_bridge",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("estimate")(estimate.estimate)
app.command("config")(config.config)
app.command("pairs")(pairs.pairs)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(models.app, name="models")


def _say_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"pose_bridge {metadata.version('pose_bridge')}")
        except metadata.PackageNotFoundError:
            typer.echo("pose_bridge, not installed (run from its source)")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The relative pose of two camera views with little or no overlap, and a clear no when unsure."""


def main() -> None:
    """Run the command line and leave the process."""
    app()


if __name__ == "__main__":
    main()
