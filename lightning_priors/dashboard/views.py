"""The workspace and the report, each of the same panels."""

from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from lightning_priors.dashboard.panels import parts, summary_panels, variant


def workspace(entity: str, project: str, group: str) -> ws.Workspace:
    """Makes the workspace.

    Args:
        entity: The account or team; may be empty as long as it is not sent.
        project: Of the runs.
        group: The comparison, or empty for all runs of the project.

    Returns:
        The workspace, not sent.

    >>> [section.name for section in workspace("me", "birds", "demo").sections][:2]
    ['Outcome by config', 'Worst group against evidence inside the prior']
    """
    sections = [ws.Section(name=title, panels=list(part.panels), is_open=True) for title, part in parts(group).items()]
    shown = ws.RunsetSettings(filters=_runs(group), groupby=[expr.Config(variant(group))])
    name = f"{group or 'all runs'}: lightning-priors"
    return ws.Workspace(entity=entity, project=project, name=name, sections=sections, runset_settings=shown)


def report(entity: str, project: str, group: str, to_send: bool = False) -> wr.Report:
    """Makes the report.

    Args:
        entity: The account or team; may be empty as long as it is not sent.
        project: Of the runs.
        group: The comparison, whose summary is shown too; or empty for all runs of the project.
        to_send: Whether the sets of runs name entity and project; their number is then asked of the server when the
            report is sent.

    Returns:
        The report, not sent.

    >>> report("me", "birds", "demo").title
    'demo'
    """
    blocks: list[Any] = [wr.TableOfContents()]
    place = {"entity": entity, "project": project} if to_send else {}
    if group:
        text = "Means over splits and seeds, and the differences to the first config with their intervals."
        filters = expr.And(expr.Metric("Group") == group, expr.Metric("JobType") == "summary")
        runs = wr.Runset(name="summary", filters=filters, **place)
        blocks += [wr.H1("Summary"), wr.P(text), wr.PanelGrid(runsets=[runs], panels=summary_panels())]
    for title, part in parts(group).items():
        said = [wr.P(part.text)] if part.text else []
        runs = wr.Runset(name="runs", filters=_runs(group), groupby=[f"config.{variant(group)}"], **place)
        blocks += [wr.H1(title), *said, wr.PanelGrid(runsets=[runs], panels=list(part.panels))]
    title = group or f"{project}: all runs"
    about = "Made by lightning-priors dashboard."
    return wr.Report(entity=entity, project=project, title=title, description=about, blocks=blocks, width="fluid")


def serialised(view: ws.Workspace | wr.Report) -> dict[str, Any]:
    """Writes a view as plain values, as W&B gets them.

    Args:
        view: The workspace or the report.

    >>> serialised(workspace("me", "birds", "demo"))["displayName"]
    'demo: lightning-priors'
    """
    content: dict[str, Any] = view._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    return content


def _runs(group: str) -> expr.And:
    """Which runs are shown."""
    trained = expr.Metric("JobType") != "summary"
    return expr.And(expr.Metric("Group") == group, trained) if group else expr.And(trained)
