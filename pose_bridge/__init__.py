# SPDX-License-Identifier: Apache-2.0
"""The relative pose of two camera views with little or no overlap, and a clear no when unsure."""

import pkgutil

# The generated messages (pose_bridge.msg, .action, .srv) may be installed elsewhere than the library.
__path__ = pkgutil.extend_path(__path__, __name__)
