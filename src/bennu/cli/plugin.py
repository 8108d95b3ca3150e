"""`docker bennu WORD`: Bennu's own words as a plugin of the docker command.

docker finds a program of this name in ~/.docker/cli-plugins or /usr/libexec/docker/cli-plugins, asks it what it is, and
then runs it with the whole line: docker's own options, `bennu`, the word.
"""

import json
import sys
from typing import Final

from bennu import __version__
from bennu.cli.main import find_word
from bennu.cli.words import run_words

METADATA_WORD: Final = "docker-cli-plugin-metadata"
METADATA: Final = {
    "SchemaVersion": "0.1.0",
    "Vendor": "Bennu",
    "Version": __version__,
    "ShortDescription": "Why containers died, and how services get from one version to the next",
}


def main() -> None:
    args = sys.argv[1:]
    if args == [METADATA_WORD]:
        print(json.dumps(METADATA))
        return
    at = find_word(args)
    if args[at : at + 1] == ["bennu"]:  # the plugin's own name, which docker leaves among the words
        del args[at]
    sys.exit(run_words(args, "docker bennu"))
