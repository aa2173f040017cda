"""Running on premises: the processes of a site and of a coordinator, with Flower as the engine between them.

``site_up(SiteSettings(...))`` and ``coordinator_up(CoordinatorSettings(...))`` are what the commands call, and what a
kit calls with the files that it holds.
"""

from llmchain_fl.onprem.settings import CoordinatorSettings, SiteSettings
from llmchain_fl.onprem.up import coordinator_up, site_up

__all__ = ["CoordinatorSettings", "SiteSettings", "coordinator_up", "site_up"]
