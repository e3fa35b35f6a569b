"""The rules of ARCHITECTURE.md and CONTRIBUTING.md that a test can check."""

import ast
import inspect
import re
from pathlib import Path

import landscribe

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "landscribe"

# A ratchet: these may go down in any commit, up only with a note in docs/decisions.
MOST_LINES_A_FILE = 450
MOST_LINES_A_FUNCTION = 70
MOST_PARAMETERS = 9
MOST_FILES_A_ROOM = 9
MOST_FILES_IN_THE_HALL = 16
# A command's parameters are its flags, and they are listed once, there.
FLAGS = {"app.py"}
# Written from the specs, one line for each setting of each verb.
GENERATED = {"keywords.py"}


def _functions():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield path, node


def test_the_tree_in_the_architecture_page_is_the_tree():
    page = (ROOT / "ARCHITECTURE.md").read_text()
    tree = page.split("src/landscribe/\n", 1)[1].split("```", 1)[0]
    drawn, folders = set(), []
    for line in tree.splitlines():
        indent, name = re.match(r"( +)(\S+)", line).groups()
        if name.endswith("/"):
            folders = [*folders[: len(indent) // 2 - 1], name]
        elif name.endswith(".py"):
            drawn.add(name)
        else:
            drawn |= {f"{''.join(folders)}{file}.py" for file in re.findall(r"\w+", line)}
    # The __init__.py of a folder is drawn only where it holds more than a docstring.
    there = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py" or len(ast.parse(path.read_text()).body) > 1
    }
    assert drawn == there


def test_rooms_are_small():
    """Of the files in a room; the hall, which is the table of contents, has the nouns that belong to no room."""
    rooms = [PACKAGE, *(folder for folder in PACKAGE.rglob("*") if folder.is_dir() and folder.name != "__pycache__")]
    files = {
        str(room.relative_to(PACKAGE)): sum(path.name != "__init__.py" for path in room.glob("*.py")) for room in rooms
    }
    assert files.pop(".") <= MOST_FILES_IN_THE_HALL
    assert {room: count for room, count in files.items() if count > MOST_FILES_A_ROOM} == {}


def test_files_are_short():
    longest = {path.name: path.read_text().count("\n") for path in PACKAGE.rglob("*.py") if path.name not in GENERATED}
    assert {name: lines for name, lines in longest.items() if lines > MOST_LINES_A_FILE} == {}


def test_functions_are_short():
    """Without the docstring, whose arguments and example may be long."""
    lines = {
        f"{path.name}:{node.name}": node.end_lineno - node.lineno + 1 - (ast.get_docstring(node) or "").count("\n")
        for path, node in _functions()
    }
    assert {name: count for name, count in lines.items() if count > MOST_LINES_A_FUNCTION} == {}


def test_parameter_lists_are_short():
    long = {}
    for path, node in _functions():
        count = len(node.args.args) + len(node.args.kwonlyargs) + len(node.args.posonlyargs)
        if count > MOST_PARAMETERS and path.name not in FLAGS:
            long[f"{path.name}:{node.name}"] = count
    assert long == {}


def test_every_text_file_has_an_encoding():
    """The default is that of the system, on Windows not UTF-8."""
    silent = [
        f"{path.name}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("read_text", "write_text")
        and not any(keyword.arg == "encoding" for keyword in node.keywords)
    ]
    assert silent == []


def test_no_file_is_named_utils():
    assert [path for path in PACKAGE.rglob("*") if re.search("util|helper|common|misc", path.name)] == []


def test_every_public_function_and_class_has_a_docstring():
    silent = []
    for path in PACKAGE.rglob("*.py"):
        module = ast.parse(path.read_text())
        public = [module, *(node for node in module.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)))]
        silent += [
            f"{path.name}:{getattr(node, 'name', 'module')}"
            for node in public
            if not getattr(node, "name", "module").startswith("_") and not ast.get_docstring(node)
        ]
    assert silent == []


def test_a_public_function_says_its_arguments_its_result_and_its_errors():
    public = {name: getattr(landscribe, name) for name in landscribe.__all__}
    missing = []
    for name, function in public.items():
        if not inspect.isfunction(function):
            continue
        text = inspect.getdoc(function)
        parts = [f"\n    {parameter}: " for parameter in inspect.signature(function).parameters]
        missing += [f"{name}: {part.strip()}" for part in (*parts, "\nReturns:\n", "\nRaises:\n") if part not in text]
    assert missing == []


def test_decisions_are_numbered_without_a_gap():
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_private_words_are_not_used():
    """Private words of earlier versions, each with the word of the glossary that replaces it."""
    private = {"told": "reported, predefined", "lots": "groups", "wanted": "requested", "foreseen": "estimated"}
    pages = [ROOT / "README.md", ROOT / "docs" / "lecture.md", *(ROOT / "docs" / "examples").glob("*.md")]
    found = [
        f"{path.relative_to(ROOT)}: {word}, say {instead}"
        for path in (*sorted(PACKAGE.rglob("*.py")), *pages)
        for word, instead in private.items()
        if re.search(rf"\b{word}\b", path.read_text().lower())
    ]
    # A path, index, shape or position; "in place" is the field's own.
    found += [
        f"{path.relative_to(PACKAGE)}: place, say path, index or position"
        for path in sorted(PACKAGE.rglob("*.py"))
        if re.search(r"(?<!in )(?<!\w)places?\b(?!_)", path.read_text())
    ]
    assert found == []


def test_no_room_hides_a_public_name():
    """Importing a module sets it as an attribute of the package, over a verb of the same name."""
    assert set(landscribe.__all__) & {path.stem for path in PACKAGE.iterdir()} == {"nn"}
