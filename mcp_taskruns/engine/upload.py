"""Sending files to where the provider's answer says."""

from collections.abc import Mapping, Sequence
from typing import Any

from mcp_taskruns.core.calls.request import File
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.uploads import upload_forms, upload_result
from mcp_taskruns.core.model.operation import Operation, Upload
from mcp_taskruns.engine.client import Exchange
from mcp_taskruns.engine.progress import Report, reporting
from mcp_taskruns.errors import CallError


async def upload_files(
    exchange: Exchange,
    operation: Operation,
    upload: Upload,
    arguments: Mapping[str, Any],
    files: Sequence[File | None],
    report: Report,
) -> CallResult:
    """Have an upload prepared, and send the files, of which some may be None: those are for the caller to send.

    Raises CallError when one could not be sent: then the provider has none of them.
    """
    async with reporting(report, len(files) + 1) as reporter:
        outcome = await exchange.fetch(operation, arguments, tell=reporter.note)
        await reporter.tell("prepared", 1)
        forms = upload_forms(upload, outcome)
        if len(forms) != len(files):
            raise CallError(
                f"{operation.provider} did not prepare as many files as it was asked to", hint="Report this."
            )
        for number, (form, file) in enumerate(zip(forms, files, strict=True), 2):
            if file is None:
                continue
            try:
                await exchange.post_form(operation, form, file, tell=reporter.note)
            except CallError as exc:
                exc.message = f"{file.name} was not uploaded: {exc.message}"
                exc.hint = f"{exc.hint} The run has none of the files: call again with all of them.".strip()
                raise
            await reporter.tell(f"uploaded {file.name}", number)
    return upload_result(upload, outcome, files)
