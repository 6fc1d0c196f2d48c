"""Send files to the addresses in the provider's response."""

from collections.abc import Mapping, Sequence
from typing import Any

from mcp_taskruns.core.calls.request import File
from mcp_taskruns.core.calls.response import CallResult
from mcp_taskruns.core.calls.uploads import upload_forms, upload_result
from mcp_taskruns.core.model.operation import Operation, Upload
from mcp_taskruns.engine.client import Client
from mcp_taskruns.engine.progress import Report, reporting
from mcp_taskruns.errors import CallError


async def upload_files(
    client: Client,
    operation: Operation,
    upload: Upload,
    arguments: Mapping[str, Any],
    files: Sequence[File | None],
    report: Report,
) -> CallResult:
    """Prepare an upload and send the files; None stands for a file that the caller sends.

    Raises CallError when a file could not be sent: then the provider has none of them.
    """
    async with reporting(report, len(files) + 1, is_timed=False) as reporter:
        result = await client.fetch(operation, arguments, notify=reporter.note)
        await reporter.report("prepared", 1)
        forms = upload_forms(upload, result)
        if len(forms) != len(files):
            raise CallError(
                f"{operation.provider} prepared {len(forms)} files, not {len(files)}", hint="Please report this."
            )
        for number, (form, file) in enumerate(zip(forms, files, strict=True), 2):
            if file is None:
                continue
            try:
                await client.post_form(operation, form, file, notify=reporter.note)
            except CallError as exc:
                raise exc.replace(
                    message=f"{file.name} was not uploaded: {exc.message}",
                    hint=f"{exc.hint} The run has none of the files: call again with all of them.".strip(),
                ) from exc
            await reporter.report(f"uploaded {file.name}", number)
    return upload_result(upload, result, files)
