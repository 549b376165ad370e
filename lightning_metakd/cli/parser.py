"""The parser of the command: a mistake is one line that names the setting, its value and what is allowed.

jsonargparse reports a mistake level by level, from the class in which it lies outwards, and repeats on the
way what else it has tried. Each level is condensed here to one text relative to it, which begins with `.`
(a setting inside), `=` (its value) or `:` (anything else); the next level puts its own name before it.
"""

import argparse
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentParser, set_parsing_settings

from lightning_metakd.cli.console import is_mistake, message_of, package_of

set_parsing_settings(config_read_mode_fsspec_enabled=False)  # a configuration is code: no addresses

KEY = re.compile(r'Parser key "([^"]+)":\s*')
CLASS = re.compile(r"Problem with given class_path '(?:\w+\.)*(\w+)':\s*")
UNKNOWN = re.compile(
    r"(?:Option|(?:Subcommand|Group) '(.+?)' does not accept option) '(.+?)'"
    r"|unrecognized arguments: (.+)"
)
TRIED = re.compile(
    r"Does not validate against any|Subtypes:|Errors:$|Given value type|Expected a path but|"
    r"Subclass types expect one of|a (class path|dict) |Unable to load config '|$"
)
"""Lines in which the parser tells what else it has tried."""
TYPE = re.compile(r"(?:Expected a|Not a valid subclass of) (.+?)(?:\. Got value: (.*))?$")
NO_CLASS = re.compile(
    r"(?:Expected a dot import path string:|Unexpected import path format:|Import path|"
    r"Expected an instantiatable class, but) (\S*?)"
    r"(?: does not correspond to a subclass of \w+| is abstract\.?)?$"
)
VALUE = re.compile(r"Given value:\s*(?:NestedArg\(key='\w+', val=(?P<nested>.*)\)|(?P<plain>.*))$")
REQUIRED = re.compile(r"the following arguments are required: (.+)")
NO_VALUE = re.compile(r"argument (?:-\w/)?--(\S+): expected one argument")
NO_PATH = re.compile(r"Expected a path but (\S+) either not accessible or invalid$")
NO_MODULE = re.compile(r"No module named '|module '.+' has no attribute '")
NO_SUBCLASS = re.compile(r"Import path does not correspond to a subclass of \w+$")
NO_DERIVED = re.compile(r"Subclasses are disabled for \w+, thus '(.+?)' is not accepted")
SEVERAL = re.compile(r"Multiple subclasses with name (\w+)\. .+: (.+)\.$")
NO_CONFIG = re.compile(r"Unexpected config:(.*)")
NO_GROUP = re.compile(r'Unable to load config "(.*)"')


class Parser(ArgumentParser):
    """Takes no abbreviations, and says what is wrong in one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self.refusal: Exception | None = None
        """What the first constructor that failed has raised."""

    def add_instantiator(
        self, instantiator: Callable[..., Any], class_type: type, *args: Any, **kwargs: Any
    ) -> None:
        """Add a way of building a class which names the class and its arguments where that fails."""
        takes_links = "applied_instantiation_links" in inspect.signature(instantiator).parameters

        def build(
            kind: type, /, *at: Any, applied_instantiation_links: Any, **settings: Any
        ) -> Any:
            links = {"applied_instantiation_links": applied_instantiation_links}
            try:
                return instantiator(kind, *at, **settings, **(links if takes_links else {}))
            except Exception as error:
                self.refusal = self.refusal or refusal_of(error, kind, settings)
                raise

        super().add_instantiator(build, class_type, *args, **kwargs)

    def refusal_in(self, error: Exception) -> Exception:
        """What a constructor has said, without what the parser says around it."""
        if self.refusal is not None:
            return self.refusal
        if package_of(error) != "jsonargparse":
            return error
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        called = [frame.f_code.co_name for frame, _ in traceback.walk_tb(cause.__traceback__)]
        function = next(name for name in called[1:] if "wrapper" not in name)
        return ValueError(f"{function}() cannot be built: {' '.join(str(cause).split())}")

    def parse_args(self, args: Any = None, *others: Any, **kwargs: Any) -> Any:
        """Take `None` for null: the parser writes it so where it hands a word on to a class in a list."""
        words = sys.argv[1:] if args is None else args
        if isinstance(words, list):
            words = [re.sub(r"=None$", "=null", word) for word in words]
        return super().parse_args(words, *others, **kwargs)

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a file of settings; one that holds none is named."""
        try:
            settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
            self.error(f"config={path} is not YAML: {' '.join(str(error).split())}")
        if not isinstance(settings, dict):
            self.error(
                f"config={path} holds {settings!r:.40} in place of settings such as model and data"
            )
        return super().parse_path(path, *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say the mistake; the outermost parser ends the program with code 2."""
        text = condensed(str(message), getattr(ex, "subcommand_parser", None) or self)
        if not self.exit_on_error:
            super().error(text, ex)
        if ex is not None and os.environ.get("METAKD_TRACEBACK"):
            traceback.print_exception(ex)
        self.exit(2, f"metakd: {text.lstrip('.:= ')}.\n")


def with_flags(words: Sequence[str], function: Callable[..., Any]) -> list[str]:
    """The words of a command, in which a flag alone, such as `--wide`, is `--wide=true`.

    Args:
        function: whose arguments the options are.
    """
    arguments = inspect.signature(function).parameters.values()
    flags = {f"--{argument.name}" for argument in arguments if argument.annotation is bool}
    return [
        f"{word}=true" if word in flags and after.startswith("--") else word
        for word, after in zip(words, [*words[1:], "--"], strict=True)
    ]


def refusal_of(error: Exception, kind: type, settings: Mapping[str, Any]) -> Exception:
    """The error of a constructor; one of a library below is told with the class and what it was given."""
    if is_mistake(error) or package_of(error) == "lightning_metakd":
        return error
    words = ", ".join(
        f"{name}={value!r}"
        for name, value in settings.items()
        if isinstance(value, int | float | str | bool | list | tuple)
    )
    refusal = ValueError(f"{kind.__name__}({words}) cannot be built: {message_of(error)}")
    refusal.__cause__ = error
    return refusal


def condensed(message: str, parser: argparse.ArgumentParser) -> str:
    """A message of the parser as one line, relative to the class whose settings `parser` reads."""
    key = class_name = value = ""
    types: list[str] = []
    texts: list[str] = []
    for line in message.splitlines():
        text = line.strip().removeprefix("- ")
        if match := KEY.match(text):
            key, text = key or match[1], text[match.end() :]
        if match := CLASS.match(text):
            class_name, text = match[1], text[match.end() :]
        if match := NO_PATH.match(text):
            value = match[1]
        if TRIED.match(text):
            continue
        if match := VALUE.match(text):
            value = (match["nested"] or match["plain"] or "").strip("'")
        elif match := NO_CLASS.match(text):
            value = match[1]
            texts.append(unknown_class(value, key, parser))
        elif NO_SUBCLASS.match(text):
            value = value or given_value(message)
            texts.append(unknown_class(value, key, parser))
        elif match := NO_DERIVED.match(text):
            texts.append(unknown_class(match[1], key, parser))
        elif NO_MODULE.match(text):
            value = value or given_value(message)
            is_file = value.endswith(".yaml")
            unknown = f"={shortened(value)} is no class that can be used here: {text}"
            texts.append(unknown_class(value, key, parser) if is_file else unknown)
        elif match := SEVERAL.match(text):
            texts.append(f"={match[1]} is the name of several classes; give one of {match[2]}")
        elif match := NO_CONFIG.match(text):
            texts.append(f".config={match[1].strip()} names no file of settings; name one")
        elif match := TYPE.match(text):
            types.append(type_name(match[1]))
            value = match[2] or value
        elif match := UNKNOWN.match(text):
            texts.append(unknown_setting(match, parser))
        elif match := REQUIRED.match(text):
            texts.append(missing_settings(match[1]))
        elif match := NO_VALUE.match(text):
            texts.append(f".{match[1]} is named without a value")
        elif match := NO_GROUP.match(text):
            texts.append(f"={match[1]} is a group: give single settings of it, or a file of them")
        else:
            texts.append(text)
    # what lies deepest inside is the mistake; of alternatives that were tried, the one that went furthest
    text = max(texts, key=lambda text: (text[:1] in ".=", text[:1] == "."), default="")
    plain = " or ".join(dict.fromkeys(kind for kind in types if kind != "null"))
    if plain:
        text = text.replace(" is no class that", f" is neither {plain} nor a class that")
    if not text:
        text = f"={shortened(value)} is not {' or '.join(dict.fromkeys(types)) or 'accepted'}"
    text = (
        text.replace(" is no setting;", f" is no setting of {class_name};") if class_name else text
    )
    prefix = f".{key}" if key else ""
    return prefix + (text if text[:1] in (".", "=", ":") else f": {text}")


def given_value(message: str) -> str:
    """The value that a message of the parser ends with."""
    matches = [match for line in message.splitlines() if (match := VALUE.match(line.strip()))]
    return (matches[-1]["plain"] or "").strip("'") if matches else ""


def unknown_setting(match: re.Match[str], parser: argparse.ArgumentParser) -> str:
    """That a setting does not exist, and the nearest that does."""
    group, name, words = match.groups()
    word = (words or name).split()[0]
    if words and not word.startswith("-"):
        return f": {word!r} is neither an option nor the value of one; options begin with --"
    name = word.lstrip("-").split("=")[0] or word
    if group and group not in COMMANDS_WITH_A_TRAINER:
        name = f"{group}.{name}"
    settings = {action.dest for action in parser._actions}
    return f".{name} is no setting;{nearest(name, settings) or ' --help lists them'}"


def unknown_class(name: str, key: str, parser: argparse.ArgumentParser) -> str:
    """That a class does not fit where a setting wants one, or that a file of it is not there."""
    if name.endswith(".yaml"):
        return (
            f"={name} names no file: a path is taken from the working directory, in a file of settings from "
            "where that file lies; on the command line also from what comes with the package"
        )
    from lightning_metakd.cli.class_names import unfit_class  # late: it imports torch

    return unfit_class(name, key, parser)


def missing_settings(names: str) -> str:
    """What has to be given."""
    settings = re.sub(r"\b(fit|validate|test|predict)\.", "", names)
    return f".{settings} must be given, as an option or in a file named by --config"


def nearest(name: str, choices: Iterable[str]) -> str:
    """The known name that a user has probably meant."""
    lower = {other.lower(): other for other in choices}
    matches = get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return f" the nearest is {lower[matches[0]]}" if matches else ""


def type_name(hint: str) -> str:
    """A type as a user of YAML calls it."""
    if match := re.match(r"<class '(?:\w+\.)*(\w+)'>", hint):
        return {"NoneType": "null", "str": "text", "bool": "true or false"}.get(match[1], match[1])
    if hint.startswith("typing.Literal"):
        return "one of " + hint.removeprefix("typing.Literal[").removesuffix("]")
    return hint


def shortened(value: str, length: int = 80) -> str:
    """A value, of which a long one is shown by its beginning."""
    return value if len(value) <= length else f"{value[:length]}..."


COMMANDS_WITH_A_TRAINER = ("fit", "validate", "test", "predict")
