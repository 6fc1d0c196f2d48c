"""The reference data: public capability files, and the API descriptions of the providers.

The data is not part of this project. `TEST_DATA` names its folder, which contains:

- `corpus-sample/`: capability files written by others
- `openapi/`: render.json, inngest.json, posthog.json and runway.json; in `more/`, documents of other providers
- `openapi/more/`: one document for each provider that is loaded on request
- `capabilities/`: the original files of the built-in capabilities
"""

import os
from pathlib import Path

PROVIDERS = ("inngest", "posthog", "render", "runway")


def _folder(name: str) -> Path:
    root = os.environ.get("TEST_DATA")
    if not root:
        raise FileNotFoundError("The folder of the reference data is not set. Run `make test-reference DATA=<folder>`.")
    folder = Path(root).resolve() / name
    if not folder.is_dir():
        raise FileNotFoundError(f"The reference data in {root} has no folder `{name}`.")
    return folder


def _files(folder: Path, pattern: str) -> list[Path]:
    files = sorted(folder.glob(pattern))
    if not files:
        raise FileNotFoundError(f"The reference data has no {pattern} in {folder}.")
    return files


CORPUS = _files(_folder("corpus-sample"), "*.yaml")
CAPABILITIES = _files(_folder("capabilities"), "*.yaml")
OPENAPI = {name: _folder("openapi") / f"{name}.json" for name in PROVIDERS}
OPENAPI_ON_REQUEST = {path.stem: path for path in _files(_folder("openapi") / "more", "*.json")}
MORE = {path.stem: path for path in _files(_folder("openapi/more"), "*.json")}
