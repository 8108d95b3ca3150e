"""What may be said of a Dockerfile that is right all the same: the rules of `docker build --check`. Pure.

Names and words are those of BuildKit's linter: rules are skipped by name (`# check=skip=…`), editors show the words.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bennu.build.dockerfile.failure import DockerfileError
from bennu.build.graph import Location
from bennu.go.bool import parse_bool
from bennu.go.printing import quote

PAGES: Final = "https://docs.docker.com/go/dockerfile/rule/"
MAX_WARNINGS: Final = 500
PLACE: Final = re.compile(r"\{[^}]*\}")
WORD_BEGIN: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True)
class Rule:
    """`form` is filled with what was found; an experimental rule is in force only where it is asked for by name."""

    name: str
    description: str
    form: str
    experimental: bool = False

    @property
    def url(self) -> str:
        return f"{PAGES}{WORD_BEGIN.sub('-', self.name).lower()}/"


RULES: Final = {
    rule.name: rule
    for rule in (
        Rule(
            "StageNameCasing",
            "Stage names should be lowercase",
            "Stage name '{}' should be lowercase",
        ),
        Rule(
            "FromAsCasing",
            "The 'as' keyword should match the case of the 'from' keyword",
            "'{}' and '{}' keywords' casing do not match",
        ),
        Rule(
            "NoEmptyContinuation",
            "Empty continuation lines will become errors in a future release",
            "Empty continuation line",
        ),
        Rule(
            "ConsistentInstructionCasing",
            "All commands within the Dockerfile should use the same casing (either upper or lower)",
            "Command '{}' should match the case of the command majority ({})",
        ),
        Rule(
            "DuplicateStageName",
            "Stage names should be unique",
            "Duplicate stage name {!q}, stage names should be unique",
        ),
        Rule(
            "ReservedStageName",
            "Reserved words should not be used as stage names",
            "Stage name should not use the same name as reserved stage {!q}",
        ),
        Rule(
            "JSONArgsRecommended",
            "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
            "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
        ),
        Rule(
            "MaintainerDeprecated",
            "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
            "Maintainer instruction is deprecated in favor of using label",
        ),
        Rule(
            "UndefinedArgInFrom",
            "FROM command must use declared ARGs",
            "FROM argument '{}' is not declared{}",
        ),
        Rule(
            "WorkdirRelativePath",
            "Relative workdir without an absolute workdir declared within the build can have unexpected results if the "
            "base image changes",
            "Relative workdir {!q} can have unexpected results if the base image changes",
        ),
        Rule(
            "UndefinedVar",
            "Variables should be defined before their use",
            "Usage of undefined variable '${}'{}",
        ),
        Rule(
            "MultipleInstructionsDisallowed",
            "Multiple instructions of the same type should not be used in the same stage",
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
        ),
        Rule(
            "LegacyKeyValueFormat",
            "Legacy key/value format with whitespace separator should not be used",
            '"{0} key=value" should be used instead of legacy "{0} key value" format',
        ),
        Rule(
            "RedundantTargetPlatform",
            "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
        ),
        Rule(
            "SecretsUsedInArgOrEnv",
            "Sensitive data should not be used in the ARG or ENV commands",
            "Do not use ARG or ENV instructions for sensitive data ({} {!q})",
        ),
        Rule(
            "InvalidDefaultArgInFrom",
            "Default value for global ARG results in an empty or invalid base image name",
            "Default value for ARG {} results in empty or invalid base image name",
        ),
        Rule(
            "FromPlatformFlagConstDisallowed",
            "FROM --platform flag should not use a constant value",
            "FROM --platform flag should not use constant value {!q}",
        ),
        Rule(
            "CopyIgnoredFile",
            "Attempting to Copy file that is excluded by .dockerignore",
            "Attempting to {} file {!q} that is excluded by .dockerignore",
            experimental=True,
        ),
        Rule(
            "ExposeProtoCasing",
            "Protocol in EXPOSE instruction should be lowercase",
            "Defined protocol '{}' in EXPOSE instruction should be lowercase",
        ),
        Rule(
            "ExposeInvalidFormat",
            "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a "
            "future release",
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{}'",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class LintWarning:
    """One rule that a line does not keep to."""

    rule: Rule
    message: str
    location: Location

    @property
    def text(self) -> str:
        """The one line that a build shows at its end."""
        return f"{self.rule.name}: {self.message} (line {self.location.first})"

    @property
    def detail(self) -> str:
        return self.rule.description

    @property
    def url(self) -> str:
        return self.rule.url


@dataclass(slots=True)
class Linter:
    """Hears of all that rules find, and keeps what is asked for. `failing`: a warning fails the build."""

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False
    failing: bool = False
    warnings: list[LintWarning] = field(default_factory=list)

    def hears(self, name: str) -> bool:
        """Tell whether a warning of this rule is asked for."""
        if len(self.warnings) >= MAX_WARNINGS:
            return False
        if RULES[name].experimental:
            return self.experimental_all or name in self.experimental
        return not self.skip_all and name not in self.skip

    def warn(self, name: str, location: Location, *found: str) -> None:
        if self.hears(name):
            self.warnings.append(LintWarning(RULES[name], _fill(RULES[name].form, found), location))

    def check(self) -> None:
        """Fail if warnings are to. Raises: DockerfileError."""
        if self.failing and self.warnings:
            names = dict.fromkeys(warning.rule.name for warning in self.warnings)
            raise DockerfileError(f"lint violation found for rules: {', '.join(names)}")


def read_checks(text: str) -> Linter:
    """Read `skip=A,B;experimental=all;error=true`, of `# check=` or of a build argument. Raises: DockerfileError."""
    linter = Linter()
    for option in text.strip().split(";", 2) if text.strip() else ():
        key, found, value = option.partition("=")
        if not found:
            raise DockerfileError(f"invalid check option {quote(option)}")
        names = frozenset(name.strip() for name in value.split(","))
        match key.strip():
            case "skip":
                linter.skip_all, linter.skip = names == {"all"}, names
            case "experimental":
                linter.experimental_all, linter.experimental = names == {"all"}, names
            case "error":
                linter.failing = _read_error(option, value.strip())
            case other:
                raise DockerfileError(f"invalid check option {quote(other)}")
    return linter


def _read_error(option: str, value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError as error:
        raise DockerfileError(f"failed to parse check option {quote(option)}: {error}") from None


def _fill(form: str, found: Sequence[str]) -> str:
    """Fill a form; what stands at `{!q}` is quoted."""
    places = PLACE.findall(form)
    values = [quote(one) if place == "{!q}" else one for place, one in zip(places, found, strict=False)]
    return form.replace("{!q}", "{}").format(*values)
