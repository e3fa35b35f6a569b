"""Outputs: files and folders are written whole or not at all, by one process at a time."""

from landscribe.outputs.atomic import (
    atomic_file,
    atomic_files,
    atomic_folder,
    remove_empty,
    remove_stale,
    remove_whole,
    scratch_folder,
    write_json,
    write_text,
)
from landscribe.outputs.claims import claim
from landscribe.outputs.refusals import os_errors, output_path, refuse_file, require_absent, require_apart
from landscribe.outputs.trials import require_output_file, require_output_folder, require_replaceable, require_writable

__all__ = [
    "atomic_file",
    "atomic_files",
    "atomic_folder",
    "claim",
    "os_errors",
    "output_path",
    "refuse_file",
    "remove_empty",
    "remove_stale",
    "remove_whole",
    "require_absent",
    "require_apart",
    "require_output_file",
    "require_output_folder",
    "require_replaceable",
    "require_writable",
    "scratch_folder",
    "write_json",
    "write_text",
]
