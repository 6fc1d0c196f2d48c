"""The requests of tools of public capability files.

The expected requests are derived by hand from the YAML and the format, never from this project.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from mcp_taskruns.core.calls.arguments import compile_validator, explain_problems
from mcp_taskruns.core.calls.request import HttpRequest, build_request
from mcp_taskruns.core.model.tool import Tool
from mcp_taskruns.errors import CallError, InvalidArguments, NotConfigured
from mcp_taskruns.loading.loader import load_tools
from tests.reference.data import CORPUS

PATHS = {path.name: path for path in CORPUS}

# Every credential is different, so that a request with the credential of another provider fails.
KEYS = {
    "ANTHROPIC_API_KEY": "anthropic-key",
    "BOX_API_KEY": "box-key",
    "BROWSERBASE_API_KEY": "browserbase-key",
    "BUILDKITE_API_TOKEN": "buildkite-key",
    "BUILDKITE_ORG_SLUG": "acme-inc",
    "CLOUDFLARE_API_KEY": "cloudflare-key",
    "DATADOG_API_KEY": "datadog-key",
    "DROPBOX_API_KEY": "dropbox-key",
    "ELEVENLABS_API_KEY": "elevenlabs-key",
    "FAL_KEY": "fal-id:fal-secret",
    "GITHUB_API_KEY": "github-key",
    "GITLAB_API_KEY": "gitlab-key",
    "GOOGLE_CLOUD_RUN_API_KEY": "google-key",
    "HUBSPOT_API_KEY": "hubspot-key",
    "JENKINS_USER": "ci-user",
    "JENKINS_PASS": "pa:ss",
    "LINEAR_API_KEY": "linear-key",
    "N8N_API_KEY": "n8n-key",
    "NETLIFY_API_KEY": "netlify-key",
    "NOTION_API_KEY": "notion-key",
    "OKTA_API_KEY": "SSWS okta-key",
    "OPENAI_API_KEY": "openai-key",
    "PAGERDUTY_API_KEY": "Token token=pagerduty-key",
    "PINECONE_API_KEY": "pinecone-key",
    "REPLICATE_API_KEY": "replicate-key",
    "RESEND_API_KEY": "resend-key",
    "SENTRY_API_KEY": "sentry-key",
    "SQUARE_ACCESS_TOKEN": "square-key",
    "STRIPE_API_KEY": "stripe-key",
    "SUPABASE_API_KEY": "supabase-key",
    "TEMPORAL_API_KEY": "temporal-key",
    "TWILIO_USER": "AC1",
    "TWILIO_PASS": "tw-pass",
    "VERCEL_API_KEY": "vercel-key",
    "WINDMILL_API_KEY": "windmill-key",
}

# The base URLs of files without one, or with placeholders in it. One trailing slash is ignored.
ADDRESSES = {
    "DATADOG_BASE_URL": "https://api.datadoghq.eu/",
    "GITHUB_BASE_URL": "https://api.github.com",
    "JENKINS_BASE_URL": "https://ci.example.com:8443/jenkins/",
    "PREFECT_BASE_URL": "https://api.prefect.cloud",
    "RESTATE_BASE_URL": "http://127.0.0.1:9070",
    "SHOPIFY_BASE_URL": "https://shop.myshopify.com",
    "SLACK_BASE_URL": "https://slack.com/api",
    "SUPABASE_BASE_URL": "https://ref.supabase.co/storage/v1",
    "WINDMILL_BASE_URL": "http://localhost:8000/api",
    "ZENDESK_BASE_URL": "https://acme.zendesk.com",
}

ENVIRONMENT = KEYS | ADDRESSES

PLAIN = {"Accept": "application/json, */*;q=0.5"}
JSON = {"Content-Type": "application/json"}

AIRFLOW = "airflow--workflow-orchestration.yaml"
ANTHROPIC, ANTHROPIC_KEY = "anthropic--admin-workspace-members.yaml", PLAIN | {"x-api-key": "anthropic-key"}
BOX, BOX_KEY = "box--box-file-versions.yaml", PLAIN | {"Authorization": "Bearer box-key"}
BROWSERBASE, BROWSERBASE_KEY = "browserbase--contexts.yaml", PLAIN | {"X-BB-API-Key": "browserbase-key"}
BUILDKITE, BUILDKITE_KEY = "buildkite-com--agents.yaml", PLAIN | {"Authorization": "Bearer buildkite-key"}
CLOUDFLARE, CLOUDFLARE_KEY = "cloudflare--dns-dns-records.yaml", PLAIN | {"Authorization": "Bearer cloudflare-key"}
DATADOG, DATADOG_KEY = "datadog--datadog-protections.yaml", PLAIN | {"Authorization": "Bearer datadog-key"}
DROPBOX, DROPBOX_KEY = "dropbox--dropbox-contacts.yaml", PLAIN | {"Authorization": "Bearer dropbox-key"}
ELEVENLABS, ELEVENLABS_KEY = "elevenlabs--studio-chapters.yaml", PLAIN | {"xi-api-key": "elevenlabs-key"}
FAL, FAL_KEY = "fal-ai--model-apis-queue.yaml", PLAIN | {"Authorization": "Key fal-id:fal-secret"}
GITHUB, GITHUB_KEY = "github--installation-delete.yaml", PLAIN | {"Authorization": "Bearer github-key"}
GITLAB, GITLAB_KEY = "gitlab--gitlab-bulk-imports.yaml", PLAIN | {"Private-Token": "gitlab-key"}
GOOGLE, GOOGLE_KEY = "google-cloud-run--google-cloud-run-jobs.yaml", PLAIN | {"Authorization": "Bearer google-key"}
HUBSPOT = "hubspot--crm-associations-association-type-definitions.yaml"
JENKINS = "jenkins--jenkins-computer.yaml"
LINEAR, LINEAR_KEY = "linear--graphql-attachments.yaml", PLAIN | {"Authorization": "Bearer linear-key"}
N8N, N8N_KEY = "n8n--n8n-credential.yaml", PLAIN | {"Authorization": "Bearer n8n-key"}
NETLIFY, NETLIFY_KEY = "netlify--netlify-site.yaml", PLAIN | {"Authorization": "Bearer netlify-key"}
NOTION, NOTION_KEY = "notion--notion-pages.yaml", PLAIN | {"Authorization": "Bearer notion-key"}
OKTA, OKTA_KEY = "okta--okta-subscription.yaml", PLAIN | {"Authorization": "SSWS okta-key"}
OPENAI, OPENAI_KEY = "openai--batch-batch.yaml", PLAIN | {"Authorization": "Bearer openai-key"}
PAGERDUTY = "pagerduty--pagerduty-incidents.yaml"
PAGERDUTY_KEY = PLAIN | {"Authorization": "Token token=pagerduty-key"}
PINECONE = "pinecone--admin-organizations.yaml"
PINECONE_KEY = PLAIN | {"Authorization": "Bearer pinecone-key", "X-Pinecone-Api-Version": "2025-04"}
PREFECT = "prefect--prefect-resources.yaml"
REPLICATE = "replicate--replicate-trainings.yaml"
RESEND, RESEND_KEY = "resend--email-delivery.yaml", PLAIN | {"Authorization": "Bearer resend-key"}
RESTATE = "restate--admin-deployment.yaml"
SENTRY, SENTRY_KEY = "sentry--sentry-projects.yaml", PLAIN | {"Authorization": "Bearer sentry-key"}
SHOPIFY = "shopify--shopify-another.yaml"
SLACK, SLACK_TOKEN = "slack--calls-add.yaml", PLAIN | {"token": "xoxb-1"}
SQUARE, SQUARE_KEY = "square--square-customercustomattributes.yaml", PLAIN | {"Authorization": "Bearer square-key"}
STRIPE, STRIPE_KEY = "stripe--sources-sources.yaml", PLAIN | {"Authorization": "Bearer stripe-key"}
SUPABASE, SUPABASE_KEY = "supabase--storage-buckets.yaml", PLAIN | {"Authorization": "Bearer supabase-key"}
TEMPORAL, TEMPORAL_KEY = "temporal--cloud-ops-api-keys.yaml", PLAIN | {"Authorization": "Bearer temporal-key"}
# "AC1:tw-pass" in base64
TWILIO, TWILIO_KEY = "twilio--super-sim-networks.yaml", PLAIN | {"Authorization": "Basic QUMxOnR3LXBhc3M="}
VERCEL, VERCEL_KEY = "vercel--v0-platform-chats.yaml", PLAIN | {"Authorization": "Bearer vercel-key"}
WINDMILL, WINDMILL_KEY = "windmill--windmill-asset.yaml", PLAIN | {"Authorization": "Bearer windmill-key"}
ZENDESK = "zendesk--oauth-oauth-clients.yaml"

JOBS = "https://run.googleapis.com/v2/projects/p1/locations/europe-west1/jobs"
PROJECT = {"projectId": "p1", "location": "europe-west1"}
RESOURCES = "https://api.prefect.cloud/api/accounts/a1/workspaces/w1/resources"
WORKSPACE = {"account_id": "a1", "workspace_id": "w1"}
MODEL = {"model_owner": "fal-ai", "model_name": "flux"}
VERSION = {"X-Pinecone-Api-Version": "2025-04"}


@dataclass(frozen=True)
class Pinned:
    """A call and the request that it sends."""

    file: str
    tool: str
    arguments: Mapping[str, Any]
    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)

    def __str__(self) -> str:
        return f"{self.tool} {' '.join(sorted(self.arguments))}".strip()


@dataclass(frozen=True)
class Refused:
    """A call that is rejected, with the error and the names in it."""

    file: str
    tool: str
    arguments: Mapping[str, Any]
    error: type[CallError]
    kind: str
    names: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)

    def __str__(self) -> str:
        return f"{self.tool} {self.kind} {' '.join(self.names)}".strip()


def without(*names: str) -> Mapping[str, str]:
    return {name: value for name, value in ENVIRONMENT.items() if name not in names}


# One line for the call and one for the request. The formatter would use one line for each argument.
# fmt: off
TABLE = [
    # Undeclared placeholders; the key in a custom header
    Pinned(
        ANTHROPIC, "anthropic-list-workspace-members", {"workspace_id": "wrkspc_1"},
        "GET", "https://api.anthropic.com/v1/organizations/workspaces/wrkspc_1/members", ANTHROPIC_KEY
    ),
    Pinned(
        ANTHROPIC, "anthropic-add-workspace-member",
        {"workspace_id": "wrkspc_1", "body": {"user_id": "user_1", "workspace_role": "workspace_developer"}},
        "POST", "https://api.anthropic.com/v1/organizations/workspaces/wrkspc_1/members", ANTHROPIC_KEY | JSON,
        b'{"user_id":"user_1","workspace_role":"workspace_developer"}'
    ),
    # A path argument is one segment: everything except unreserved characters is encoded
    Pinned(
        ANTHROPIC, "anthropic-get-workspace-member", {"user_id": "\u00fc?#%", "workspace_id": "a/b c~-._"},
        "GET", "https://api.anthropic.com/v1/organizations/workspaces/a%2Fb%20c~-._/members/%C3%BC%3F%23%25",
        ANTHROPIC_KEY
    ),
    Pinned(
        ANTHROPIC, "anthropic-update-workspace-member",
        {"workspace_id": "wrkspc_1", "user_id": "user_1", "body": {"workspace_role": "workspace_admin"}},
        "POST", "https://api.anthropic.com/v1/organizations/workspaces/wrkspc_1/members/user_1", ANTHROPIC_KEY | JSON,
        b'{"workspace_role":"workspace_admin"}'
    ),
    Pinned(
        ANTHROPIC, "anthropic-remove-workspace-member", {"workspace_id": "wrkspc_1", "user_id": "user_1"},
        "DELETE", "https://api.anthropic.com/v1/organizations/workspaces/wrkspc_1/members/user_1", ANTHROPIC_KEY
    ),
    # Arrays repeat the key; the query is in the file's order; an optional body, with and without
    Pinned(
        BOX, "box-list-all-file-versions", {"offset": 0, "limit": 10, "fields": ["id", "name"], "file_id": "12345"},
        "GET", "https://api.box.com/2.0/files/12345/versions?fields=id&fields=name&limit=10&offset=0", BOX_KEY
    ),
    Pinned(
        BOX, "box-list-all-file-versions", {"file_id": "12345"},
        "GET", "https://api.box.com/2.0/files/12345/versions", BOX_KEY
    ),
    Pinned(
        BOX, "box-promote-file-version", {"file_id": "12345", "fields": ["id,name"]},
        "POST", "https://api.box.com/2.0/files/12345/versions/current?fields=id%2Cname", BOX_KEY
    ),
    Pinned(
        BOX, "box-promote-file-version", {"file_id": "12345", "body": {"id": "871399", "type": "file_version"}},
        "POST", "https://api.box.com/2.0/files/12345/versions/current", BOX_KEY | JSON,
        b'{"id":"871399","type":"file_version"}'
    ),
    Pinned(
        BOX, "box-get-file-version", {"file_version_id": "871399", "file_id": "12345", "fields": ["id"]},
        "GET", "https://api.box.com/2.0/files/12345/versions/871399?fields=id", BOX_KEY
    ),
    # A header argument, with and without
    Pinned(
        BOX, "box-remove-file-version", {"file_id": "12345", "file_version_id": "871399", "if-match": '"1"'},
        "DELETE", "https://api.box.com/2.0/files/12345/versions/871399", BOX_KEY | {"if-match": '"1"'}
    ),
    Pinned(
        BOX, "box-remove-file-version", {"file_id": "12345", "file_version_id": "871399"},
        "DELETE", "https://api.box.com/2.0/files/12345/versions/871399", BOX_KEY
    ),
    # A null in a body is sent, and so is an empty body
    Pinned(
        BOX, "box-restore-file-version",
        {"file_id": "12345", "file_version_id": "871399", "body": {"trashed_at": None}},
        "PUT", "https://api.box.com/2.0/files/12345/versions/871399", BOX_KEY | JSON, b'{"trashed_at":null}'
    ),
    Pinned(
        BOX, "box-restore-file-version", {"file_id": "12345", "file_version_id": "871399", "body": {}},
        "PUT", "https://api.box.com/2.0/files/12345/versions/871399", BOX_KEY | JSON, b"{}"
    ),
    # A PUT without a declared body
    Pinned(
        BROWSERBASE, "browserbase-create-context", {"body": {"projectId": "p-1"}},
        "POST", "https://api.browserbase.com/v1/contexts", BROWSERBASE_KEY | JSON, b'{"projectId":"p-1"}'
    ),
    Pinned(
        BROWSERBASE, "browserbase-get-context", {"id": "ctx-1"},
        "GET", "https://api.browserbase.com/v1/contexts/ctx-1", BROWSERBASE_KEY
    ),
    Pinned(
        BROWSERBASE, "browserbase-update-context", {"id": "ctx-1"},
        "PUT", "https://api.browserbase.com/v1/contexts/ctx-1", BROWSERBASE_KEY
    ),
    # A constant in the path, from the environment; a template with a key as Authorization
    Pinned(
        BUILDKITE, "buildkite-list-agents", {},
        "GET", "https://api.buildkite.com/v2/organizations/acme-inc/agents", BUILDKITE_KEY
    ),
    Pinned(
        BUILDKITE, "buildkite-get-agent", {"id": "018f-1"},
        "GET", "https://api.buildkite.com/v2/organizations/acme-inc/agents/018f-1", BUILDKITE_KEY
    ),
    Pinned(
        BUILDKITE, "buildkite-stop-agent", {"id": "018f-1"},
        "PUT", "https://api.buildkite.com/v2/organizations/acme-inc/agents/018f-1/stop", BUILDKITE_KEY
    ),
    # The whole query in the file's order, encoded; PATCH and PUT with a body, DELETE without
    Pinned(
        CLOUDFLARE, "cloudflare-list-dns-records",
        {"zone_id": "z1", "per_page": 100, "page": 2, "content": "a=b&c d+e", "name": "m\u00fcnchen.de", "type": "A"},
        "GET", "https://api.cloudflare.com/client/v4/zones/z1/dns_records"
        "?type=A&name=m%C3%BCnchen.de&content=a%3Db%26c%20d%2Be&page=2&per_page=100", CLOUDFLARE_KEY
    ),
    Pinned(
        CLOUDFLARE, "cloudflare-create-dns-record",
        {"zone_id": "z1", "body": {"type": "A", "name": "www", "content": "192.0.2.1", "ttl": 1, "proxied": True}},
        "POST", "https://api.cloudflare.com/client/v4/zones/z1/dns_records", CLOUDFLARE_KEY | JSON,
        b'{"type":"A","name":"www","content":"192.0.2.1","ttl":1,"proxied":true}'
    ),
    Pinned(
        CLOUDFLARE, "cloudflare-get-dns-record-details", {"zone_id": "z1", "dns_record_id": "r1"},
        "GET", "https://api.cloudflare.com/client/v4/zones/z1/dns_records/r1", CLOUDFLARE_KEY
    ),
    Pinned(
        CLOUDFLARE, "cloudflare-update-dns-record",
        {"zone_id": "z1", "dns_record_id": "r1", "body": {"ttl": 300}},
        "PATCH", "https://api.cloudflare.com/client/v4/zones/z1/dns_records/r1", CLOUDFLARE_KEY | JSON, b'{"ttl":300}'
    ),
    Pinned(
        CLOUDFLARE, "cloudflare-overwrite-dns-record",
        {"zone_id": "z1", "dns_record_id": "r1", "body": {"type": "TXT", "content": "gr\u00f6\u00dfer"}},
        "PUT", "https://api.cloudflare.com/client/v4/zones/z1/dns_records/r1", CLOUDFLARE_KEY | JSON,
        b'{"type":"TXT","content":"gr\xc3\xb6\xc3\x9fer"}'
    ),
    Pinned(
        CLOUDFLARE, "cloudflare-delete-dns-record", {"zone_id": "z1", "dns_record_id": "r1"},
        "DELETE", "https://api.cloudflare.com/client/v4/zones/z1/dns_records/r1", CLOUDFLARE_KEY
    ),
    # A baseUri of placeholders only; names that the file has numbered
    Pinned(
        DATADOG, "datadog-get-all-workload-protection", {},
        "GET", "https://api.datadoghq.eu/api/v2/remote_config/products/cws/agent_rules", DATADOG_KEY
    ),
    Pinned(
        DATADOG, "datadog-get-all-workload-protection-2", {},
        "GET", "https://api.datadoghq.eu/api/v2/remote_config/products/cws/policy", DATADOG_KEY
    ),
    Pinned(
        DATADOG, "datadog-get-all-workload-protection-3", {},
        "GET", "https://api.datadoghq.eu/api/v2/security_monitoring/cloud_workload_security/agent_rules", DATADOG_KEY
    ),
    Pinned(
        DATADOG, "datadog-download-workload-protection-policy-2", {},
        "GET", "https://api.datadoghq.eu/api/v2/security/cloud_workload/policy/download", DATADOG_KEY
    ),
    Pinned(
        DATADOG, "datadog-update-workload-protection-agent",
        {"agent_rule_id": "3b5-v9s", "body": {"data": {"attributes": {"enabled": False}}}},
        "PATCH", "https://api.datadoghq.eu/api/v2/remote_config/products/cws/agent_rules/3b5-v9s", DATADOG_KEY | JSON,
        b'{"data":{"attributes":{"enabled":false}}}'
    ),
    Pinned(
        DATADOG, "datadog-delete-workload-protection-agent-2", {"agent_rule_id": "3b5-v9s"},
        "DELETE", "https://api.datadoghq.eu/api/v2/security_monitoring/cloud_workload_security/agent_rules/3b5-v9s",
        DATADOG_KEY
    ),
    # Two operations with one name: the one with the inputs of the tool, or else the first
    Pinned(
        DROPBOX, "dropbox-delete-manual-contacts", {},
        "POST", "https://api.dropbox.com/2/contacts/delete_manual_contacts", DROPBOX_KEY
    ),
    Pinned(
        DROPBOX, "dropbox-delete-manual-contacts-batch", {"body": {"email_addresses": ["a@example.com"]}},
        "POST", "https://api.dropbox.com/2/contacts/delete_manual_contacts_batch", DROPBOX_KEY | JSON,
        b'{"email_addresses":["a@example.com"]}'
    ),
    Pinned(
        DROPBOX, "dropbox-delete-manual-contacts-batch", {"Content-Type": "text/plain", "body": {"a": 1}},
        "POST", "https://api.dropbox.com/2/contacts/delete_manual_contacts_batch", DROPBOX_KEY | JSON, b'{"a":1}'
    ),
    Pinned(
        DROPBOX, "dropbox-delete-manual-contacts-batch", {"Content-Type": "text/plain"},
        "POST", "https://api.dropbox.com/2/contacts/delete_manual_contacts_batch", DROPBOX_KEY
    ),
    # A version at the front of the path, not in the baseUri
    Pinned(
        ELEVENLABS, "elevenlabs-list-chapters", {"project_id": "p1"},
        "GET", "https://api.elevenlabs.io/v1/studio/projects/p1/chapters", ELEVENLABS_KEY
    ),
    Pinned(
        ELEVENLABS, "elevenlabs-get-chapter", {"chapter_id": "c1", "project_id": "p1"},
        "GET", "https://api.elevenlabs.io/v1/studio/projects/p1/chapters/c1", ELEVENLABS_KEY
    ),
    Pinned(
        ELEVENLABS, "elevenlabs-delete-chapter", {"chapter_id": "c1", "project_id": "p1"},
        "DELETE", "https://api.elevenlabs.io/v1/studio/projects/p1/chapters/c1", ELEVENLABS_KEY
    ),
    # A path of placeholders only; a custom scheme in Authorization
    Pinned(
        FAL, "fal-submit-request", MODEL | {"body": {"prompt": "a cat", "seed": 7, "scale": 3.5}},
        "POST", "https://queue.fal.run/fal-ai/flux", FAL_KEY | JSON, b'{"prompt":"a cat","seed":7,"scale":3.5}'
    ),
    Pinned(
        FAL, "fal-submit-request", {"model_owner": "fal-ai", "model_name": "flux/dev", "body": {}},
        "POST", "https://queue.fal.run/fal-ai/flux%2Fdev", FAL_KEY | JSON, b"{}"
    ),
    Pinned(
        FAL, "fal-get-status", MODEL | {"request_id": "r-1"},
        "GET", "https://queue.fal.run/fal-ai/flux/requests/r-1/status", FAL_KEY
    ),
    Pinned(
        FAL, "fal-get-result", MODEL | {"request_id": "r-1"},
        "GET", "https://queue.fal.run/fal-ai/flux/requests/r-1", FAL_KEY
    ),
    Pinned(
        FAL, "fal-cancel-request", MODEL | {"request_id": "r-1"},
        "PUT", "https://queue.fal.run/fal-ai/flux/requests/r-1/cancel", FAL_KEY
    ),
    # An empty baseUri
    Pinned(
        GITHUB, "github-delete-installation-authenticated-app", {"installation_id": "42"},
        "DELETE", "https://api.github.com/app/installations/42", GITHUB_KEY
    ),
    Pinned(
        GITHUB, "github-delete-installation-authenticated-app", {"installation_id": "42"},
        "DELETE", "https://ghe.example.com/api/v3/app/installations/42", GITHUB_KEY,
        environment=ENVIRONMENT | {"GITHUB_BASE_URL": "https://ghe.example.com/api/v3/"}
    ),
    # baseUri and path are joined as they are, even if both contain /api; integers in a path
    Pinned(
        GITLAB, "gitlab-list-all-gitlab-migrations", {"status": "finished", "sort": "desc", "page": 2},
        "GET", "https://www.gitlab.com/api/api/v4/bulk_imports?page=2&sort=desc&status=finished", GITLAB_KEY
    ),
    Pinned(
        GITLAB, "gitlab-start-new-gitlab-migration",
        {"body": {"configuration": {"url": "https://gitlab.example.com"}, "entities": []}},
        "POST", "https://www.gitlab.com/api/api/v4/bulk_imports", GITLAB_KEY | JSON,
        b'{"configuration":{"url":"https://gitlab.example.com"},"entities":[]}'
    ),
    Pinned(
        GITLAB, "gitlab-list-all-gitlab-migrations-2", {"per_page": 50},
        "GET", "https://www.gitlab.com/api/api/v4/bulk_imports/entities?per_page=50", GITLAB_KEY
    ),
    Pinned(
        GITLAB, "gitlab-get-gitlab-migration-details", {"import_id": 7},
        "GET", "https://www.gitlab.com/api/api/v4/bulk_imports/7", GITLAB_KEY
    ),
    Pinned(
        GITLAB, "gitlab-list-gitlab-migration-entities", {"import_id": 7, "page": 1, "status": "failed"},
        "GET", "https://www.gitlab.com/api/api/v4/bulk_imports/7/entities?status=failed&page=1", GITLAB_KEY
    ),
    Pinned(
        GITLAB, "gitlab-get-gitlab-migration-entity", {"import_id": 7, "entity_id": 0},
        "GET", "https://www.gitlab.com/api/api/v4/bulk_imports/7/entities/0", GITLAB_KEY
    ),
    # Booleans; a name in the query of one operation and the path of another; text after a placeholder
    Pinned(
        GOOGLE, "google-cloud-run-list-jobs",
        PROJECT | {"showDeleted": False, "pageToken": "a+/=", "pageSize": 10},
        "GET", JOBS + "?pageSize=10&pageToken=a%2B%2F%3D&showDeleted=false", GOOGLE_KEY
    ),
    Pinned(
        GOOGLE, "google-cloud-run-create-job", PROJECT | {"jobId": "job-1", "body": {"template": {}}},
        "POST", JOBS + "?jobId=job-1", GOOGLE_KEY | JSON, b'{"template":{}}'
    ),
    Pinned(
        GOOGLE, "google-cloud-run-get-job", PROJECT | {"jobId": "job-1"},
        "GET", JOBS + "/job-1", GOOGLE_KEY
    ),
    Pinned(
        GOOGLE, "google-cloud-run-update-job", PROJECT | {"jobId": "job-1", "body": {"labels": None}},
        "PATCH", JOBS + "/job-1", GOOGLE_KEY | JSON, b'{"labels":null}'
    ),
    Pinned(
        GOOGLE, "google-cloud-run-delete-job", PROJECT | {"jobId": "job-1"},
        "DELETE", JOBS + "/job-1", GOOGLE_KEY
    ),
    Pinned(
        GOOGLE, "google-cloud-run-run-job", PROJECT | {"jobId": "job-1"},
        "POST", JOBS + "/job-1:run", GOOGLE_KEY
    ),
    Pinned(
        GOOGLE, "google-cloud-run-run-job", PROJECT | {"jobId": "a:b", "body": {"validateOnly": True}},
        "POST", JOBS + "/a%3Ab:run", GOOGLE_KEY | JSON, b'{"validateOnly":true}'
    ),
    # No arguments
    Pinned(
        HUBSPOT, "hubspot-list-all-association-definitions", {},
        "GET", "https://api.hubapi.com/crm/v4/associations/definitions",
        PLAIN | {"Authorization": "Bearer hubspot-key"}
    ),
    # Basic ("ci-user:pa:ss" in base64), with variables that the file does not bind; a placeholder as host
    Pinned(
        JENKINS, "jenkins-list-connected-agents", {},
        "GET", "https://ci.example.com:8443/jenkins/computer/api/json",
        PLAIN | {"Authorization": "Basic Y2ktdXNlcjpwYTpzcw=="}
    ),
    Pinned(
        LINEAR, "linear-upload-file-attachment", {"body": {"query": 'mutation { a(b: "c") { d } }', "variables": {}}},
        "POST", "https://api.linear.app/graphql/graphql/upload", LINEAR_KEY | JSON,
        b'{"query":"mutation { a(b: \\"c\\") { d } }","variables":{}}'
    ),
    # POST and PUT without a declared body
    Pinned(N8N, "n8n-create-credential", {}, "POST", "https://app.n8n.cloud/api/v1/credentials", N8N_KEY),
    Pinned(
        N8N, "n8n-show-credential-data-schema", {"credentialTypeName": "githubApi"},
        "GET", "https://app.n8n.cloud/api/v1/credentials/schema/githubApi", N8N_KEY
    ),
    Pinned(
        N8N, "n8n-delete-credential-id", {"id": "R2DjclaysHbqn778"},
        "DELETE", "https://app.n8n.cloud/api/v1/credentials/R2DjclaysHbqn778", N8N_KEY
    ),
    Pinned(
        N8N, "n8n-test-credential", {"id": "R2DjclaysHbqn778"},
        "POST", "https://app.n8n.cloud/api/v1/credentials/R2DjclaysHbqn778/test", N8N_KEY
    ),
    Pinned(
        N8N, "n8n-transfer-credential-another-project", {"id": "R2DjclaysHbqn778"},
        "PUT", "https://app.n8n.cloud/api/v1/credentials/R2DjclaysHbqn778/transfer", N8N_KEY
    ),
    # A query and a body; a placeholder at the start of the path
    Pinned(
        NETLIFY, "netlify-note-environment-variable-keys-and",
        {"per_page": 5, "page": 1, "filter": "all", "name": "a b"},
        "GET", "https://api.netlify.com/api/v1/sites?name=a%20b&filter=all&page=1&per_page=5", NETLIFY_KEY
    ),
    Pinned(
        NETLIFY, "netlify-note-environment-variable-keys-and-2", {"configure_dns": True, "body": {"name": "site"}},
        "POST", "https://api.netlify.com/api/v1/sites?configure_dns=true", NETLIFY_KEY | JSON, b'{"name":"site"}'
    ),
    Pinned(
        NETLIFY, "netlify-note-environment-variable-keys-and-3",
        {"site_id": "site.example.com", "feature_flags": "a,b"},
        "GET", "https://api.netlify.com/api/v1/sites/site.example.com?feature_flags=a%2Cb", NETLIFY_KEY
    ),
    Pinned(
        NETLIFY, "netlify-deletesite", {"site_id": "s1"},
        "DELETE", "https://api.netlify.com/api/v1/sites/s1", NETLIFY_KEY
    ),
    Pinned(
        NETLIFY, "netlify-beta-unlinks-repo-site", {"site_id": "s1"},
        "PUT", "https://api.netlify.com/api/v1/sites/s1/unlink_repo", NETLIFY_KEY
    ),
    Pinned(
        NETLIFY, "netlify-note-environment-variable-keys-and-5", {"account_slug": "acme", "name": "x"},
        "GET", "https://api.netlify.com/api/v1/acme/sites?name=x", NETLIFY_KEY
    ),
    Pinned(
        NETLIFY, "netlify-note-environment-variable-keys-and-6", {"account_slug": "acme", "configure_dns": False},
        "POST", "https://api.netlify.com/api/v1/acme/sites?configure_dns=false", NETLIFY_KEY
    ),
    # An encoded value is encoded again; an empty array is not sent
    Pinned(
        NOTION, "notion-create-page", {"body": {"parent": {"page_id": "p1"}, "children": [{"a": [1, [2]]}]}},
        "POST", "https://api.notion.com/v1/pages", NOTION_KEY | JSON,
        b'{"parent":{"page_id":"p1"},"children":[{"a":[1,[2]]}]}'
    ),
    Pinned(
        NOTION, "notion-retrieve-page", {"page_id": "p1", "filter_properties": ["title", "%3Aa", "a&b"]},
        "GET", "https://api.notion.com/v1/pages/p1"
        "?filter_properties=title&filter_properties=%253Aa&filter_properties=a%26b", NOTION_KEY
    ),
    Pinned(
        NOTION, "notion-retrieve-page", {"page_id": "p1", "filter_properties": []},
        "GET", "https://api.notion.com/v1/pages/p1", NOTION_KEY
    ),
    Pinned(
        NOTION, "notion-update-page-properties", {"page_id": "p1", "body": {"archived": True}},
        "PATCH", "https://api.notion.com/v1/pages/p1", NOTION_KEY | JSON, b'{"archived":true}'
    ),
    Pinned(
        NOTION, "notion-retrieve-page-property-item",
        {"page_id": "p1", "property_id": "%3Aabc", "page_size": 100},
        "GET", "https://api.notion.com/v1/pages/p1/properties/%253Aabc?page_size=100", NOTION_KEY
    ),
    # A key that is the whole Authorization header with its scheme
    Pinned(
        OKTA, "okta-list-all-subscriptions-custom", {"roleTypeOrRoleId": "SUPER_ADMIN"},
        "GET", "https://your-subdomain.okta.com/api/v1/roles/SUPER_ADMIN/subscriptions", OKTA_KEY
    ),
    Pinned(
        OKTA, "okta-subscribe-custom-role-specific",
        {"roleTypeOrRoleId": "SUPER_ADMIN", "notificationType": "IWA_AGENT"},
        "POST", "https://your-subdomain.okta.com/api/v1/roles/SUPER_ADMIN/subscriptions/IWA_AGENT/subscribe", OKTA_KEY
    ),
    # The variable of the prefix replaces the baseUri of the file
    Pinned(
        OKTA, "okta-unsubscribe-specific-notification-type", {"userId": "00u1", "notificationType": "IWA_AGENT"},
        "POST", "https://acme.okta.com/api/v1/users/00u1/subscriptions/IWA_AGENT/unsubscribe", OKTA_KEY,
        environment=ENVIRONMENT | {"OKTA_BASE_URL": "https://acme.okta.com"}
    ),
    Pinned(
        OPENAI, "openai-create-batch",
        {"body": {"input_file_id": "file-1", "endpoint": "/v1/responses", "completion_window": "24h"}},
        "POST", "https://api.openai.com/v1/batches", OPENAI_KEY | JSON,
        b'{"input_file_id":"file-1","endpoint":"/v1/responses","completion_window":"24h"}'
    ),
    Pinned(
        OPENAI, "openai-get-batch", {"batch_id": "batch_1"},
        "GET", "https://api.openai.com/v1/batches/batch_1", OPENAI_KEY
    ),
    Pinned(
        OPENAI, "openai-cancel-batch", {"batch_id": "batch_1"},
        "POST", "https://api.openai.com/v1/batches/batch_1/cancel", OPENAI_KEY
    ),
    # Bodies that are optional in PUT and POST; placeholders in the middle of a path
    Pinned(
        PAGERDUTY, "pagerduty-list-incidents", {},
        "GET", "https://api.pagerduty.com/incidents", PAGERDUTY_KEY
    ),
    Pinned(
        PAGERDUTY, "pagerduty-manage-incidents", {},
        "PUT", "https://api.pagerduty.com/incidents", PAGERDUTY_KEY
    ),
    Pinned(
        PAGERDUTY, "pagerduty-create-incident", {"body": {"incident": {"title": "a\nb", "urgency": "high"}}},
        "POST", "https://api.pagerduty.com/incidents", PAGERDUTY_KEY | JSON,
        b'{"incident":{"title":"a\\nb","urgency":"high"}}'
    ),
    Pinned(
        PAGERDUTY, "pagerduty-update-incident", {"id": "PT4", "body": {"incident": {"status": "resolved"}}},
        "PUT", "https://api.pagerduty.com/incidents/PT4", PAGERDUTY_KEY | JSON, b'{"incident":{"status":"resolved"}}'
    ),
    Pinned(
        PAGERDUTY, "pagerduty-get-alert", {"alert_id": "A1", "id": "PT4"},
        "GET", "https://api.pagerduty.com/incidents/PT4/alerts/A1", PAGERDUTY_KEY
    ),
    Pinned(
        PAGERDUTY, "pagerduty-manually-change-incident-s-impact",
        {"id": "PT4", "business_service_id": "B1", "body": {"relation": "impacted"}},
        "PUT", "https://api.pagerduty.com/incidents/PT4/business_services/B1/impacts", PAGERDUTY_KEY | JSON,
        b'{"relation":"impacted"}'
    ),
    Pinned(
        PAGERDUTY, "pagerduty-snooze-incident", {"id": "PT4"},
        "POST", "https://api.pagerduty.com/incidents/PT4/snooze", PAGERDUTY_KEY
    ),
    Pinned(
        PAGERDUTY, "pagerduty-remove-notification-subscriber", {"id": "PT4", "body": {"subscribers": []}},
        "POST", "https://api.pagerduty.com/incidents/PT4/status_updates/unsubscribe", PAGERDUTY_KEY | JSON,
        b'{"subscribers":[]}'
    ),
    # A required header
    Pinned(
        PINECONE, "pinecone-list-organizations", VERSION,
        "GET", "https://api.pinecone.io/admin/organizations", PINECONE_KEY
    ),
    Pinned(
        PINECONE, "pinecone-get-organization-details", VERSION | {"organization_id": "o1"},
        "GET", "https://api.pinecone.io/admin/organizations/o1", PINECONE_KEY
    ),
    Pinned(
        PINECONE, "pinecone-delete-organization", VERSION | {"organization_id": "o1"},
        "DELETE", "https://api.pinecone.io/admin/organizations/o1", PINECONE_KEY
    ),
    Pinned(
        PINECONE, "pinecone-update-organization", VERSION | {"organization_id": "o1", "body": {"name": "Acme"}},
        "PATCH", "https://api.pinecone.io/admin/organizations/o1", PINECONE_KEY | JSON, b'{"name":"Acme"}'
    ),
    # No authentication and no baseUri: the bound key is not sent; a `-` in the name of a query parameter
    Pinned(PREFECT, "prefect-filter-workspace-resources", WORKSPACE, "POST", RESOURCES + "/filter", PLAIN),
    Pinned(
        PREFECT, "prefect-get-filtered-resources-count", WORKSPACE | {"body": {"filter": {"any_": ["a"]}}},
        "POST", RESOURCES + "/filter/count", PLAIN | JSON, b'{"filter":{"any_":["a"]}}'
    ),
    Pinned(
        PREFECT, "prefect-read-resources-page", WORKSPACE | {"page-token": "a/b="},
        "GET", RESOURCES + "/filter/next?page-token=a%2Fb%3D", PLAIN
    ),
    Pinned(PREFECT, "prefect-get-hidden-resources", WORKSPACE, "GET", RESOURCES + "/hidden-resources", PLAIN),
    Pinned(
        PREFECT, "prefect-remove-resource-exclusion", WORKSPACE | {"body": {"resource_path": "/a"}},
        "POST", RESOURCES + "/hidden-resources/delete", PLAIN | JSON, b'{"resource_path":"/a"}'
    ),
    Pinned(
        REPLICATE, "replicate-list-trainings", {},
        "GET", "https://api.replicate.com/v1/trainings", PLAIN | {"Authorization": "Bearer replicate-key"}
    ),
    # Body templates: a placeholder keeps the JSON type of the argument, or is dropped. A key without `env.`
    Pinned(
        RESEND, "email-send-transactional-email",
        {"to": ["b@example.com", "c@example.com"], "from": "Ann <a@example.com>", "subject": 'Say "hi"\n'},
        "POST", "https://api.resend.com/emails", RESEND_KEY | JSON,
        b'{"from":"Ann <a@example.com>","to":["b@example.com","c@example.com"],"subject":"Say \\"hi\\"\\n"}'
    ),
    Pinned(
        RESEND, "email-send-transactional-email",
        {"from": "a@example.com", "to": "b@example.com", "subject": "", "html": "<b>{{tools.text}}</b>", "text": "x"},
        "POST", "https://api.resend.com/emails", RESEND_KEY | JSON,
        b'{"from":"a@example.com","to":"b@example.com","subject":"","html":"<b>{{tools.text}}</b>","text":"x"}'
    ),
    # A placeholder that is not in the tool's `with` is an argument as well
    Pinned(
        RESEND, "email-send-batch-emails", {"emails": [{"to": "a@example.com", "tags": None}, {"to": "b@example.com"}]},
        "POST", "https://api.resend.com/emails", RESEND_KEY | JSON,
        b'{"emails":[{"to":"a@example.com","tags":null},{"to":"b@example.com"}]}'
    ),
    Pinned(RESEND, "email-list-sending-domains", {}, "GET", "https://api.resend.com/domains", RESEND_KEY),
    Pinned(
        RESEND, "email-create-sending-domain", {"name": "example.com"},
        "POST", "https://api.resend.com/domains", RESEND_KEY | JSON, b'{"name":"example.com"}'
    ),
    # No body without optional arguments
    Pinned(RESEND, "email-create-audience", {}, "POST", "https://api.resend.com/audiences", RESEND_KEY),
    # Placeholders of the path and of the body are separate
    Pinned(
        RESEND, "email-add-contact-to-audience",
        {"first_name": "Zo\u00eb", "email": "z@example.com", "audience_id": "a/1"},
        "POST", "https://api.resend.com/audiences/a%2F1/contacts", RESEND_KEY | JSON,
        b'{"email":"z@example.com","first_name":"Zo\xc3\xab"}'
    ),
    Pinned(
        RESEND, "email-create-broadcast",
        {"name": "May", "audience_id": "a/1", "from": "a@example.com", "subject": "S"},
        "POST", "https://api.resend.com/broadcasts", RESEND_KEY | JSON,
        b'{"name":"May","audience_id":"a/1","from":"a@example.com","subject":"S"}'
    ),
    Pinned(
        RESEND, "email-list-contacts", {"audience_id": "aud-1"},
        "GET", "https://api.resend.com/audiences/aud-1/contacts", RESEND_KEY
    ),
    Pinned(RESEND, "email-list-api-keys", {}, "GET", "https://api.resend.com/api-keys", RESEND_KEY),
    # http to the local machine; a boolean in the query of a DELETE
    Pinned(RESTATE, "restate-list-deployments", {}, "GET", "http://127.0.0.1:9070/deployments", PLAIN),
    Pinned(
        RESTATE, "restate-create-deployment", {"body": {"uri": "http://localhost:9080", "force": False}},
        "POST", "http://127.0.0.1:9070/deployments", PLAIN | JSON, b'{"uri":"http://localhost:9080","force":false}'
    ),
    Pinned(
        RESTATE, "restate-update-deployment", {"deployment": "dp_1", "body": {"dry_run": True}},
        "PUT", "http://127.0.0.1:9070/deployments/dp_1", PLAIN | JSON, b'{"dry_run":true}'
    ),
    Pinned(
        RESTATE, "restate-delete-deployment", {"deployment": "dp_1", "force": True},
        "DELETE", "http://127.0.0.1:9070/deployments/dp_1?force=true", PLAIN
    ),
    # A trailing slash of a path is kept, also before a query
    Pinned(
        SENTRY, "sentry-list-projects-organization", {"organization_slug": "acme", "limit": 5, "query": "is:ok"},
        "GET", "https://sentry.io/api/0/organizations/acme/projects/?query=is%3Aok&limit=5", SENTRY_KEY
    ),
    Pinned(
        SENTRY, "sentry-retrieve-project", {"organization_slug": "acme", "project_slug": "web"},
        "GET", "https://sentry.io/api/0/projects/acme/web/", SENTRY_KEY
    ),
    # A dot after a placeholder
    Pinned(
        SHOPIFY, "shopify-moves-fulfillment-order-one", {"fulfillment_order_id": "1", "new_location_id": "2"},
        "POST", "https://shop.myshopify.com/admin/api/2020-01/fulfillment_orders/1/move.json?new_location_id=2", PLAIN
    ),
    Pinned(
        SHOPIFY, "shopify-updates-order-risk-you-4",
        {"order_id": "450", "risk_id": "284", "body": {"risk": {"score": 0.5, "cause_cancel": False}}},
        "PUT", "https://shop.myshopify.com/admin/api/2020-10/orders/450/risks/284.json", PLAIN | JSON,
        b'{"risk":{"score":0.5,"cause_cancel":false}}'
    ),
    Pinned(
        SHOPIFY, "shopify-deletes-order-risk-order-6", {"order_id": "450", "risk_id": "a.b/c"},
        "DELETE", "https://shop.myshopify.com/admin/api/unstable/orders/450/risks/a.b%2Fc.json", PLAIN
    ),
    # Dots in a path; a secret in a header argument
    Pinned(
        SLACK, "slack-post-calls-add", {"token": "xoxb-1", "body": {"join_url": "https://example.com/1"}},
        "POST", "https://slack.com/api/calls.add", SLACK_TOKEN | JSON, b'{"join_url":"https://example.com/1"}'
    ),
    Pinned(
        SLACK, "slack-post-calls-participants-add", {"token": "xoxb-1", "body": {"id": "R1", "users": []}},
        "POST", "https://slack.com/api/calls.participants.add", SLACK_TOKEN | JSON, b'{"id":"R1","users":[]}'
    ),
    # Operation names with capitals; numbers and booleans in one query
    Pinned(
        SQUARE, "square-list-customer-custom-attribute-definitions", {"cursor": "c==", "limit": 20},
        "GET", "https://connect.squareup.com/v2/customers/custom-attribute-definitions?limit=20&cursor=c%3D%3D",
        SQUARE_KEY
    ),
    Pinned(
        SQUARE, "square-delete-customer-custom-attribute-definition", {"key": "app:size"},
        "DELETE", "https://connect.squareup.com/v2/customers/custom-attribute-definitions/app%3Asize", SQUARE_KEY
    ),
    Pinned(
        SQUARE, "square-update-customer-custom-attribute-definition", {"key": "size", "body": {"version": 2}},
        "PUT", "https://connect.squareup.com/v2/customers/custom-attribute-definitions/size", SQUARE_KEY | JSON,
        b'{"version":2}'
    ),
    Pinned(
        SQUARE, "square-list-customer-custom-attributes", {"customer_id": "C1", "with_definitions": False, "limit": 1},
        "GET", "https://connect.squareup.com/v2/customers/C1/custom-attributes?limit=1&with_definitions=false",
        SQUARE_KEY
    ),
    Pinned(
        SQUARE, "square-retrieve-customer-custom-attribute",
        {"customer_id": "C1", "key": "size", "version": 3, "with_definition": True},
        "GET", "https://connect.squareup.com/v2/customers/C1/custom-attributes/size?with_definition=true&version=3",
        SQUARE_KEY
    ),
    Pinned(
        SQUARE, "square-upsert-customer-custom-attribute",
        {"customer_id": "C1", "key": "size", "body": {"custom_attribute": {"value": "L"}}},
        "POST", "https://connect.squareup.com/v2/customers/C1/custom-attributes/size", SQUARE_KEY | JSON,
        b'{"custom_attribute":{"value":"L"}}'
    ),
    # Paths without arguments and with two; a body of an undeclared type is JSON
    Pinned(
        STRIPE, "stripe-attach-source-customer", {"customer": "cus_1", "body": {"source": "src_1"}},
        "POST", "https://api.stripe.com/v1/customers/cus_1/sources", STRIPE_KEY | JSON, b'{"source":"src_1"}'
    ),
    Pinned(
        STRIPE, "stripe-detach-source-customer", {"id": "src_1", "customer": "cus_1"},
        "DELETE", "https://api.stripe.com/v1/customers/cus_1/sources/src_1", STRIPE_KEY
    ),
    Pinned(STRIPE, "stripe-create-source", {}, "POST", "https://api.stripe.com/v1/sources", STRIPE_KEY),
    Pinned(
        STRIPE, "stripe-retrieve-source", {"source": "src_1", "expand": ["a[]", "b.c"], "client_secret": "s$"},
        "GET", "https://api.stripe.com/v1/sources/src_1?client_secret=s%24&expand=a%5B%5D&expand=b.c", STRIPE_KEY
    ),
    Pinned(
        STRIPE, "stripe-list-source-transactions", {"source": "src_1", "starting_after": "t", "limit": 3},
        "GET", "https://api.stripe.com/v1/sources/src_1/source_transactions?limit=3&starting_after=t", STRIPE_KEY
    ),
    # A baseUri with a placeholder in its host, and a path
    Pinned(SUPABASE, "supabase-list-all-buckets", {}, "GET", "https://ref.supabase.co/storage/v1/bucket", SUPABASE_KEY),
    Pinned(
        SUPABASE, "supabase-create-new-bucket", {"body": {"name": "pics", "file_size_limit": None, "public": True}},
        "POST", "https://ref.supabase.co/storage/v1/bucket", SUPABASE_KEY | JSON,
        b'{"name":"pics","file_size_limit":null,"public":true}'
    ),
    Pinned(
        SUPABASE, "supabase-update-bucket", {"bucketId": "my pics", "body": {"public": False}},
        "PUT", "https://ref.supabase.co/storage/v1/bucket/my%20pics", SUPABASE_KEY | JSON, b'{"public":false}'
    ),
    Pinned(
        SUPABASE, "supabase-empty-bucket", {"bucketId": "pics"},
        "POST", "https://ref.supabase.co/storage/v1/bucket/pics/empty", SUPABASE_KEY
    ),
    Pinned(
        TEMPORAL, "temporal-list-api-keys", {"ownerType": "user", "pageSize": 10, "ownerId": "o 1"},
        "GET", "https://saas-api.tmprl.cloud/api/v1/api-keys?pageSize=10&ownerId=o%201&ownerType=user", TEMPORAL_KEY
    ),
    Pinned(
        TEMPORAL, "temporal-create-api-key", {"body": {"spec": {"expiryTime": "2026-01-01T00:00:00Z"}}},
        "POST", "https://saas-api.tmprl.cloud/api/v1/api-keys", TEMPORAL_KEY | JSON,
        b'{"spec":{"expiryTime":"2026-01-01T00:00:00Z"}}'
    ),
    Pinned(
        TEMPORAL, "temporal-delete-api-key", {"keyId": "k1"},
        "DELETE", "https://saas-api.tmprl.cloud/api/v1/api-keys/k1", TEMPORAL_KEY
    ),
    # Basic; capitals in paths and queries are kept
    Pinned(
        TWILIO, "twilio-retrieve-list-network-resources", {"Page": 0, "PageSize": 50, "Mnc": "01", "IsoCountry": "DE"},
        "GET", "https://supersim.twilio.com/v1/Networks?IsoCountry=DE&Mnc=01&PageSize=50&Page=0", TWILIO_KEY
    ),
    Pinned(
        TWILIO, "twilio-fetch-network-resource", {"Sid": "HW1"},
        "GET", "https://supersim.twilio.com/v1/Networks/HW1", TWILIO_KEY
    ),
    Pinned(
        VERCEL, "vercel-create-chat", {"body": {"message": "\U0001f600 hi"}},
        "POST", "https://v0.dev/api/v1/chat", VERCEL_KEY | JSON, b'{"message":"\xf0\x9f\x98\x80 hi"}'
    ),
    Pinned(
        VERCEL, "vercel-continue-chat", {"chatId": "c1", "body": {"message": "on"}},
        "POST", "https://v0.dev/api/v1/chat/c1", VERCEL_KEY | JSON, b'{"message":"on"}'
    ),
    Pinned(VERCEL, "vercel-get-chat", {"chatId": "c1"}, "GET", "https://v0.dev/api/v1/chat/c1", VERCEL_KEY),
    # A query that is named `path`
    Pinned(
        WINDMILL, "windmill-list-all-assets-workspace-cursor",
        {"workspace": "ops", "path": "f/a b", "cursor_id": 3, "cursor_created_at": "2026-01-31T09:00Z", "columns": ""},
        "GET", "http://localhost:8000/api/w/ops/assets/list"
        "?cursor_created_at=2026-01-31T09%3A00Z&cursor_id=3&path=f%2Fa%20b&columns=", WINDMILL_KEY
    ),
    Pinned(
        WINDMILL, "windmill-list-all-assets-used-given", {"workspace": "ops", "body": {"usages": [{"kind": "script"}]}},
        "POST", "http://localhost:8000/api/w/ops/assets/list_by_usages", WINDMILL_KEY | JSON,
        b'{"usages":[{"kind":"script"}]}'
    ),
    Pinned(
        WINDMILL, "windmill-list-all-favorite-assets-authenticated", {"workspace": "ops"},
        "GET", "http://localhost:8000/api/w/ops/assets/list_favorites", WINDMILL_KEY
    ),
    # No authentication, baseUri or parameters
    Pinned(
        ZENDESK, "zendesk-get-api-v2-oauth", {},
        "GET", "https://acme.zendesk.com/api/v2/oauth/clients", PLAIN
    ),
    Pinned(
        ZENDESK, "zendesk-post-api-v2-oauth", {},
        "POST", "https://acme.zendesk.com/api/v2/oauth/clients", PLAIN
    ),
    Pinned(
        ZENDESK, "zendesk-put-api-v2-oauth", {"oauth_client_id": "9"},
        "PUT", "https://acme.zendesk.com/api/v2/oauth/clients/9", PLAIN
    ),
    Pinned(
        ZENDESK, "zendesk-put-api-v2-oauth-2", {"oauth_client_id": "9"},
        "PUT", "https://acme.zendesk.com/api/v2/oauth/clients/9/generate_secret", PLAIN
    ),
    Pinned(
        ZENDESK, "zendesk-delete-api-v2-oauth", {"oauth_client_id": "9"},
        "DELETE", "https://acme.zendesk.com/api/v2/oauth/clients/9", PLAIN
    ),
]

# The operations are in another file, which is missing: the tools are listed but cannot be called
UNSUPPORTED = [
    Refused(AIRFLOW, f"airflow-{name}", {}, NotConfigured, "unsupported")
    for name in (
        "list-dags", "get-dag", "trigger-dag-run", "list-dag-runs", "get-dag-run-status", "list-task-instances",
        "pause-dag", "list-variables", "get-variable", "list-connections"
    )
] + [
    # Path parameters without a placeholder: a call without them would have another effect
    Refused(RESEND, "email-get-email-status", {"email_id": "e1"}, NotConfigured, "unsupported", ("email_id",)),
    Refused(RESEND, "email-cancel-scheduled-email", {"email_id": "e1"}, NotConfigured, "unsupported", ("email_id",)),
    Refused(RESEND, "email-verify-domain", {"domain_id": "d1"}, NotConfigured, "unsupported", ("domain_id",)),
    Refused(
        RESEND, "email-send-broadcast-campaign", {"id": "b1", "scheduled_at": "in 1 hour"},
        NotConfigured, "unsupported", ("id",)
    ),
]

UNCONFIGURED = [
    # No baseUri, or one with placeholders: the error names the variable and the flag
    Refused(
        file, tool, arguments, NotConfigured, "config", (variable, "--base-uri", namespace), without(variable)
    )
    for file, tool, arguments, variable, namespace in (
        (DATADOG, "datadog-get-all-workload-protection", {}, "DATADOG_BASE_URL", "datadog-protections"),
        (
            GITHUB, "github-delete-installation-authenticated-app", {"installation_id": "42"},
            "GITHUB_BASE_URL", "installation-delete"
        ),
        (JENKINS, "jenkins-list-connected-agents", {}, "JENKINS_BASE_URL", "jenkins-computer"),
        (PREFECT, "prefect-get-hidden-resources", WORKSPACE, "PREFECT_BASE_URL", "prefect-resources"),
        (RESTATE, "restate-list-deployments", {}, "RESTATE_BASE_URL", "admin-deployment"),
        (
            SHOPIFY, "shopify-deletes-order-risk-order", {"order_id": "1", "risk_id": "2"},
            "SHOPIFY_BASE_URL", "shopify-another"
        ),
        (SLACK, "slack-post-calls-add", {"token": "xoxb-1", "body": {}}, "SLACK_BASE_URL", "calls-add"),
        (SUPABASE, "supabase-list-all-buckets", {}, "SUPABASE_BASE_URL", "storage-buckets"),
        (
            WINDMILL, "windmill-list-all-favorite-assets-authenticated", {"workspace": "ops"},
            "WINDMILL_BASE_URL", "windmill-asset"
        ),
        (ZENDESK, "zendesk-get-api-v2-oauth", {}, "ZENDESK_BASE_URL", "oauth-oauth-clients")
    )
] + [
    # Unset or empty variables. A missing credential is an `auth` error, another missing value a `config` error.
    Refused(
        HUBSPOT, "hubspot-list-all-association-definitions", {}, NotConfigured, "auth",
        ("HUBSPOT_API_KEY",), without("HUBSPOT_API_KEY")
    ),
    Refused(
        FAL, "fal-get-result", MODEL | {"request_id": "r-1"}, NotConfigured, "auth", ("FAL_KEY",),
        ENVIRONMENT | {"FAL_KEY": ""}
    ),
    Refused(
        BUILDKITE, "buildkite-list-agents", {}, NotConfigured, "config", ("BUILDKITE_ORG_SLUG",),
        without("BUILDKITE_ORG_SLUG")
    ),
    Refused(
        RESEND, "email-list-api-keys", {}, NotConfigured, "auth", ("RESEND_API_KEY",), without("RESEND_API_KEY")
    ),
    # Each of the two variables of Basic authentication
    Refused(
        JENKINS, "jenkins-list-connected-agents", {}, NotConfigured, "auth", ("JENKINS_USER",),
        without("JENKINS_USER")
    ),
    Refused(
        TWILIO, "twilio-fetch-network-resource", {"Sid": "HW1"}, NotConfigured, "auth", ("TWILIO_PASS",),
        without("TWILIO_PASS")
    ),
    # Credentials are sent without TLS only to the local machine
    Refused(
        GITHUB, "github-delete-installation-authenticated-app", {"installation_id": "42"},
        NotConfigured, "config", ("GITHUB_BASE_URL",), ENVIRONMENT | {"GITHUB_BASE_URL": "http://api.github.com"}
    ),
]

INVALID = [
    # Path segments that would change the path
    Refused(
        ANTHROPIC, "anthropic-remove-workspace-member", {"workspace_id": "wrkspc_1", "user_id": value},
        InvalidArguments, "validation", ("user_id",)
    )
    for value in ("", ".", "..")
] + [
    Refused(
        GOOGLE, "google-cloud-run-run-job", PROJECT | {"jobId": ""},
        InvalidArguments, "validation", ("jobId",)
    ),
] + [
    # Header values with line breaks or non-ASCII characters
    Refused(
        PINECONE, "pinecone-list-organizations", {"X-Pinecone-Api-Version": value},
        InvalidArguments, "validation", ("X-Pinecone-Api-Version",)
    )
    for value in ("2025-04\r\nX-Other: 1", "2025-04\n", "\u00e9")
]

# fmt: on
REFUSED = UNSUPPORTED + UNCONFIGURED + INVALID


@cache
def tools_of(file: str) -> Mapping[str, Tool]:
    return {tool.name: tool for tool in load_tools([PATHS[file]])}


def tool_of(file: str, name: str) -> Tool:
    tools = tools_of(file)
    assert name in tools, f"{file} lists {sorted(tools)}"
    return tools[name]


def shown(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that the schema validates: without those that are accepted and ignored."""
    return {name: value for name, value in arguments.items() if name not in tool.dropped_arguments}


def by_value(headers: Mapping[str, str], content: bytes | None) -> str | bytes | None:
    """Return a JSON body in a normal form: spaces and the order of keys do not count, but 1, 1.0 and true differ."""
    if content is None or headers.get("Content-Type") != "application/json":
        return content
    return json.dumps(json.loads(content), sort_keys=True)


def sent(request: HttpRequest) -> tuple[str, str, list[tuple[str, str]], str | bytes | None]:
    body = by_value(dict(request.headers), request.content)
    return request.method, request.url, sorted(request.headers), body


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_call_sends_the_request_that_the_file_describes(row: Pinned) -> None:
    request = build_request(tool_of(row.file, row.tool).operation, row.arguments, row.environment)
    expected = (row.method, row.url, sorted(row.headers.items()), by_value(row.headers, row.content))
    assert sent(request) == expected


@pytest.mark.parametrize("row", [*TABLE, *UNSUPPORTED, *UNCONFIGURED], ids=str)
def test_input_schema_accepts_the_arguments_of_the_call(row: Pinned | Refused) -> None:
    tool = tool_of(row.file, row.tool)
    arguments = shown(tool, row.arguments)
    assert explain_problems(tool.input_schema, arguments) == []
    assert compile_validator(tool.input_schema)(arguments)


@pytest.mark.parametrize("row", REFUSED, ids=str)
def test_rejected_call_names_its_cause(row: Refused) -> None:
    tool = tool_of(row.file, row.tool)
    with pytest.raises(row.error) as caught:
        build_request(tool.operation, row.arguments, row.environment)
    assert caught.value.kind == row.kind
    line = caught.value.to_line()
    assert set(row.names) <= set(re.findall(r"[\w-]+", line)), line
    assert [value for value in KEYS.values() if value in line] == [], "an error contains a credential"


@pytest.mark.parametrize(
    ("file", "tool", "arguments", "problems"),
    [
        # Placeholders are required even if they are not declared
        (SENTRY, "sentry-list-projects-organization", {}, ["organization_slug: is required"]),
        (SUPABASE, "supabase-update-bucket", {}, ["body: is required", "bucketId: is required"]),
        (FAL, "fal-get-status", {"request_id": "r"}, ["model_name: is required", "model_owner: is required"]),
        # `required: true` outside of paths
        (GOOGLE, "google-cloud-run-create-job", PROJECT | {"body": {}}, ["jobId: is required"]),
        (PREFECT, "prefect-read-resources-page", WORKSPACE, ["page-token: is required"]),
        (SLACK, "slack-post-calls-add", {}, ["body: is required", "token: is required"]),
        (PINECONE, "pinecone-list-organizations", {}, ["X-Pinecone-Api-Version: is required"]),
        # Constants and undeclared names are not arguments
        (BUILDKITE, "buildkite-list-agents", {"org": "other"}, ["org: unknown argument"]),
        (N8N, "n8n-create-credential", {"body": {}}, ["body: unknown argument"]),
        (HUBSPOT, "hubspot-list-all-association-definitions", {"a": 1}, ["a: unknown argument"]),
        # Types as declared
        (
            GITLAB,
            "gitlab-get-gitlab-migration-details",
            {"import_id": "7"},
            ["import_id: must be of type integer"],
        ),
        (RESTATE, "restate-delete-deployment", {"deployment": "d", "force": "yes"}, ["force: must be of type boolean"]),
        (
            NOTION,
            "notion-retrieve-page",
            {"page_id": "p", "filter_properties": "a"},
            ["filter_properties: must be of type array"],
        ),
        (LINEAR, "linear-upload-file-attachment", {"body": [1]}, ["body: must be of type object"]),
    ],
)
def test_input_schema_rejects_invalid_arguments(
    file: str, tool: str, arguments: Mapping[str, Any], problems: list[str]
) -> None:
    schema = tool_of(file, tool).input_schema
    assert sorted(explain_problems(schema, arguments)) == problems
    assert not compile_validator(schema)(arguments)


def test_declared_content_type_is_not_an_argument() -> None:
    tool = tool_of(DROPBOX, "dropbox-delete-manual-contacts-batch")
    assert set(tool.input_schema["properties"]) == {"body"}
    assert tool.dropped_arguments == {"Content-Type"}


def test_table_has_at_least_sixty_tools() -> None:
    assert len({(row.file, row.tool) for row in TABLE}) >= 60


def test_table_has_every_file_with_a_tool_that_can_be_called() -> None:
    callable_files = {name for name in PATHS if any(not tool.operation.unsupported for tool in tools_of(name).values())}
    assert callable_files == {row.file for row in TABLE}
