"""Options: each field of a spec has a flag, or a stated reason for none."""

import re

import pytest
import typer
from typer.testing import CliRunner

from landscribe.commands import app as cli
from landscribe.commands import options
from landscribe.commands.options import help_of, spec_of, with_settings
from landscribe.spec import NoFlag
from landscribe.training.spec import TrainSpec

COMMANDS = typer.main.get_command(cli.app).commands
FIELDS = [(section, name) for section in options._SECTIONS for name in spec_of(section).model_fields]


def parameters_of(verb: str) -> list:
    command = COMMANDS[verb]
    with command.context_class(command, info_name=verb) as context:
        return command.get_params(context)


def flags_of(verb: str) -> set[str]:
    """All flags of a verb."""
    return {flag for parameter in parameters_of(verb) for flag in parameter.opts}


MADE_FROM_FIELDS = {parameter.name for verb in COMMANDS for parameter in parameters_of(verb)}


@pytest.mark.parametrize(("section", "name"), FIELDS)
def test_each_field_has_a_flag_or_a_reason_for_none(section, name):
    reasons = [mark.reason for mark in spec_of(section).model_fields[name].metadata if isinstance(mark, NoFlag)]
    assert bool(reasons) != (f"{section}__{name}" in MADE_FROM_FIELDS)
    assert all(reasons)


PROMISED = {
    "run": "--image --labels --label-field --out --seed --json",
    "check": "--image --labels --label-field --json",
    "chip": "--image --labels --label-field --size --stride --mode --out -o --seed --dask --json",
    "train": "--architecture --encoder --weights --epochs --steps --minutes --seed --out -o --json",
    "predict": "--out -o --probabilities --engine --dask --json",
    "assess": "--reference --label-field --objects --score-field --tolerance --out -o --json",
}  # fmt: skip


@pytest.mark.parametrize("verb", PROMISED)
def test_promised_flags_keep_their_names(verb):
    assert set(PROMISED[verb].split()) <= flags_of(verb)


@pytest.mark.parametrize(
    ("section", "name", "text"),
    [
        ("train", "patience", "Early stopping: epochs without improvement. [no early stopping]"),
        ("train", "loss", r'Loss, or a weighted sum such as "0.5\*dice + 0.5\*ce". [dice + ce]'),
        ("train", "accumulate", "Gradient accumulation: batches per optimizer step. [1]"),
        ("train", "optimizer", "Optimizer: AdamW, or SGD with momentum 0.9. [adamw]"),
        ("chips", "virtual", "Write only the index, and read windows from the scenes."),
    ],
)  # fmt: skip
def test_help_is_the_first_sentence_and_the_default(section, name, text):
    assert help_of(spec_of(section).model_fields[name]) == text


def test_help_shows_choices_and_panels(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = CliRunner().invoke(cli.app, ["run", "--help"]).output
    assert re.search(r"--optimizer +\S*adamw\|sgd", text)
    assert re.search(r"--tile +<int\|auto>", text)
    assert all(
        f"─ {panel} ─" in text for panel in ("Scenes", "Chips", "Split", "Augmentation", "Training", "Prediction")
    )


def settings_from(cls: type, *arguments: str) -> dict:
    """The settings that a command of that class receives."""
    app, received = typer.Typer(), {}

    @app.command(cls=cls)
    def command(ctx: typer.Context) -> None:
        received.update(ctx.obj)

    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return received


def test_settings_arrive_by_section():
    arguments = ("--size", "64", "--batch", "2", "--option", "depth=3", "--option", "activation=swish", "--no-stack")
    assert settings_from(cli.RunCommand, *arguments) == {
        "chips": {"size": 64},
        "train": {"batch": "2", "options": ["depth=3", "activation=swish"]},
        "scenes": {"stack": False},
    }


def test_dask_of_a_run_serves_chips_map_and_polygons():
    settings = settings_from(cli.RunCommand, "--dask", "auto")
    assert settings == {section: {"dask": "auto"} for section in ("chips", "predict", "vectorize")}


def test_a_flag_of_two_sections_needs_a_decision():
    with pytest.raises(ValueError, match="--batch is a flag of train and of predict"):
        options._parameters(("train", "predict"), None, in_run=False)


def test_a_new_field_becomes_a_flag_without_another_line(monkeypatch):
    class Grown(TrainSpec):
        warmup: int | None = None
        """Steps of warm-up."""

    monkeypatch.setattr(options, "spec_of", lambda section: Grown)
    assert settings_from(with_settings("train"), "--warmup", "5") == {"train": {"warmup": 5}}


def test_choices_complete_in_a_shell(monkeypatch, capsys):
    monkeypatch.setenv("COMP_WORDS", "landscribe train --optimizer ")
    monkeypatch.setenv("COMP_CWORD", "3")
    monkeypatch.setenv("_LANDSCRIBE_COMPLETE", "complete_bash")
    with pytest.raises(SystemExit):
        typer.main.get_command(cli.app).main([], prog_name="landscribe")
    assert capsys.readouterr().out.split() == ["adamw", "sgd"]


def test_usual_words_arrive_as_they_are_typed():
    typed = ("--format", "jpeg", "--val", "20%", "--lr", "0.1", "--backbone", "resnet34", "--optimizer", "AdamW")
    assert settings_from(cli.RunCommand, *typed) == {
        "chips": {"format": "jpeg"},
        "split": {"val": "20%"},
        "train": {"learning_rate": "0.1", "encoder": "resnet34", "optimizer": "adamw"},
    }


def test_choices_that_also_take_other_words_are_shown(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert re.search(r"--format +<tif\|png\|jpg>", CliRunner().invoke(cli.app, ["chip", "--help"]).output)
