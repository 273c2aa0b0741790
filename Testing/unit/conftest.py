"""Every run of the tests draws the same examples: a failure is the code's, and comes back.

To look for new ones: ``pytest --hypothesis-profile=explore``.
"""

from __future__ import annotations

from hypothesis import settings

# no deadline: on a shared machine the time of one example says nothing
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")
