# SPDX-License-Identifier: Apache-2.0
"""A kidnapped robot finds itself, over real ROS 2: `make demo`.

A simulated robot maps a furnished room, looking across it, and is carried to the other side. There it turns
and drives, and the node says where it is; the truth is shown beside. Then it is carried to a room that it
never saw, where the node has to say that it does not know.

Mapping is not the node's business: a SLAM system would tell it where odometry lies in the map. Here the truth
does, and only while the robot maps.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import figure
import numpy as np
import witness
from found import Found, table, verdict
from processes import DemoError, Process
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from pose_bridge.config import Config
from pose_bridge.errors import ErrorCode
from pose_bridge.geometry import uncertainty
from pose_bridge.keyframes import store
from pose_bridge.ros import poses
from pose_bridge.simulation.driving import TURN_RADPS
from pose_bridge.simulation.furnished import Room
from pose_bridge.simulation.robot import DEFAULT_BUILD
from pose_bridge.views import Stage

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "demo"
PICTURE, RESULT = "kidnapped_robot.png", "result.json"
MAP = "demo"
ROOM_SEED, STRANGER_SEED = 0, 1
SPEED = 4.0
PICTURES_HZ, ODOMETRY_HZ = 5.0, 20.0
STRANGER_BUDGET_S = 15.0
TURN_S = 2.0 * np.pi / TURN_RADPS
START_S, STORY_S, ANSWER_S = 30.0, 90.0, 10.0
MEETING_S = 0.5  # until both ends of a service know each other; an answer before that is lost
ADVICE = ("", "turn", "move", "bring more light")
TICK_S = 0.05


class Demo:
    """The story, step by step."""

    def __init__(self, console: Console, asked: argparse.Namespace) -> None:
        self.asked = asked
        self._console = console
        self._processes: list[Process] = []
        self._doing = ""
        self.witness = witness.start()

    def start(self) -> None:
        """Start node and simulator."""
        mount = DEFAULT_BUILD
        node = {
            "autostart": True,
            "use_sim_time": True,
            "image.reliability": "reliable",
            "image.patience_s": SPEED,  # by the simulator's clock: a second by the wall's
            "goals.max_result_age_s": SPEED * Config().goals.max_result_age_s,  # likewise
            "map.directory": self.asked.out,
            "worker.threads": os.cpu_count() or 1,
            "extrinsics.known": True,
            "extrinsics.x_m": mount.camera_forward_m,
            "extrinsics.z_m": mount.camera_height_m,
            "extrinsics.pitch_rad": mount.camera_pitch_rad,
        }
        simulator = {
            "style_seed": self.asked.style,
            "room_seed": ROOM_SEED,
            "stranger_seed": STRANGER_SEED,
            "seed": self.asked.seed,
            "speed": SPEED,
            "clock": True,
            "rate_hz": PICTURES_HZ,
            "odometry_hz": ODOMETRY_HZ,
            "listeners": 2,
            "queue_depth": 100,
        }
        self._run("node", node)
        self.wait("starting the node", self.witness.set_map_pose.service_is_ready, START_S)
        time.sleep(MEETING_S)
        self.witness.mapping = True  # from the first picture on: what comes before is not in the map
        self._run("simulator_node", simulator)
        self.wait("furnishing a room, and starting the robot", lambda: self.witness.placed, START_S)

    def map(self) -> list[Any]:
        """Let the robot map the room; returns the keyframes."""
        self.wait("the robot maps the room", lambda: "tour, done" in self.witness.acts, STORY_S, self._seen)
        self.witness.mapping = False
        for response in self.witness.placed:
            self.told("set_map_pose", response)
        self.told("save_map", self.witness.save_map.call_async(_named(self.witness.save_map, MAP)))
        return list(store.load_map(self.asked.out, MAP))

    def carry(self, how: Any, doing: str) -> int:
        """Have the robot carried; returns the stamp of the last picture before."""
        carried = self.witness.carried_ns
        times = len(carried) + 1
        self.told(how.srv_name, how.call_async(how.srv_type.Request()))
        self.wait(doing, lambda: len(carried) == times and max(self.witness.truth) > carried[-1], START_S)
        return carried[-1]

    def look_around(self) -> None:
        """Let the robot turn once around; then it drives on."""
        since_ns = min(stamp_ns for stamp_ns in self.witness.truth if stamp_ns > self.witness.carried_ns[-1])
        turned_ns = since_ns + int(TURN_S * 1e9)
        self.wait("it looks around", lambda: max(self.witness.truth) > turned_ns, STORY_S, self._seen)

    def ask(self, budget_s: float) -> tuple[Any, float]:
        """Ask where the robot is; returns the result and the seconds that it took."""
        start_s, words = time.monotonic(), [""]

        def hear(feedback: Any) -> None:
            words[0] = _told(feedback)

        doing = "it drives on; where is it?"
        self.wait(doing, self.witness.relocalize.server_is_ready, ANSWER_S)
        handle = self.wait(doing, self.witness.ask_where(budget_s, hear).result, ANSWER_S)
        getting = handle.get_result_async()
        done = self.wait(doing, getting.result, budget_s + ANSWER_S, lambda: words[0])
        return done.result, time.monotonic() - start_s

    def compared(self, result: Any, seconds: float) -> Found:
        """An answer beside the truth."""
        stamp_ns = poses.from_stamp(result.pose.header.stamp)
        T_answer, covariance = poses.from_pose_with_covariance(result.pose.pose)
        return Found(
            T_true=self.witness.truth[stamp_ns],
            T_answer=T_answer,
            covariance=covariance,
            stamp_ns=stamp_ns,
            keyframe_id=result.keyframe_id,
            stage=Stage(result.relative_pose.stage),
            probability=float(result.relative_pose.probability),
            seconds=seconds,
        )

    def told(self, what: str, future: Any) -> Any:
        """Wait for a service's response, which must be a good one."""
        response = self.wait(self._doing, future.result, ANSWER_S)
        if getattr(response, "error_code", 0) or not getattr(response, "success", True):
            said = getattr(response, "error_msg", "") or response.message
            raise DemoError(f"{what} was refused: {said}")
        return response

    def wait(
        self, doing: str, ready: Callable[[], Any], limit_s: float, more: Callable[[], str] = lambda: ""
    ) -> Any:
        """Return what `ready` returns once that is something; meanwhile show what is being done."""
        start_s = time.monotonic()
        if doing != self._doing:
            self._doing = doing
            self._console.print(f"[dim]{_clock()}[/dim] {doing}")
        with Status(doing, console=self._console) as status:
            while not (value := ready()):
                for process in self._processes:
                    process.check()
                passed_s = time.monotonic() - start_s
                if passed_s > limit_s:
                    raise DemoError(
                        f"{doing}: not done after {limit_s:.0f} s; see the logs in {self.asked.out}"
                    )
                status.update(f"{doing} ({passed_s:.0f} s) {more()}")
                time.sleep(TICK_S)
        return value

    def close(self) -> None:
        """Leave nothing behind."""
        for process in reversed(self._processes):
            process.stop()
        self.witness.close()

    def _run(self, module: str, parameters: dict[str, Any]) -> None:
        self._processes.append(Process(module, parameters, self.asked.out / f"{module}.log"))

    def _seen(self) -> str:
        return f"{len(self.witness.truth)} pictures"


def summary(found: Found | None, code: ErrorCode, stranger_code: ErrorCode, seconds: float) -> dict[str, Any]:
    """The content of result.json."""
    kidnapped: dict[str, Any] = {"error_code": code.name, "localized": found is not None and found.right}
    if found is not None:
        kidnapped |= {
            "T_map_base": found.T_answer.tolist(),
            "T_map_base_true": found.T_true.tolist(),
            "covariance": found.covariance.tolist(),
            "error_m": found.error_m,
            "error_deg": found.error_deg,
            "error_sigmas": (found.error / found.sigmas).tolist(),
            "nees": uncertainty.nees(found.T_answer, found.covariance, found.T_true),
            "stage": found.stage.name,
            "probability": found.probability,
            "keyframe_id": found.keyframe_id,
            "seconds": found.seconds,
        }
    stranger = {"error_code": stranger_code.name, "abstained": stranger_code is ErrorCode.NOT_LOCALIZED}
    passed = kidnapped["localized"] and stranger["abstained"]
    return {"passed": passed, "seconds": seconds, "kidnapped": kidnapped, "stranger": stranger}


def play(demo: Demo, console: Console) -> bool:
    """The whole story; returns whether both ends came out right."""
    start_s = time.monotonic()
    demo.start()
    keyframes = demo.map()
    console.print(f"        {len(keyframes)} keyframes are in the map")
    since_ns = demo.carry(demo.witness.kidnap, "it is carried to the other side")
    demo.look_around()
    result, seconds = demo.ask(demo.asked.budget)
    code, found = ErrorCode(result.error_code), None
    if code is ErrorCode.NONE:
        found = demo.compared(result, seconds)
        console.print(f"        [bold]{'found' if found.right else 'WRONG'}[/bold]: {verdict(found)}")
        console.print(table(found))
    else:
        console.print(f"        [bold]{code.name}[/bold]: {escape(result.error_msg)}")
    until_ns = demo.carry(demo.witness.stranger, "it is carried to a room that it never saw")
    demo.look_around()
    result, seconds = demo.ask(STRANGER_BUDGET_S)
    stranger = ErrorCode(result.error_code)
    rightly = stranger is ErrorCode.NOT_LOCALIZED
    meaning = "and rightly so: it never saw this room" if rightly else "but it never saw this room"
    console.print(f"        [bold]{stranger.name}[/bold] {meaning}. {escape(result.error_msg)}")
    if found is not None:
        room = Room(demo.asked.style, ROOM_SEED)
        figure.draw(found, keyframes, demo.witness, (since_ns, until_ns), demo.asked.out / PICTURE, room)
    outcome = summary(found, code, stranger, time.monotonic() - start_s)
    (demo.asked.out / RESULT).write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")
    return bool(outcome["passed"])


def main() -> int:
    """Exit code 0 if both ends came out right, 1 if not, 2 if something broke, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description="A kidnapped robot finds itself, over real ROS 2.")
    parser.add_argument("--style", type=int, default=66, help="seed of the furniture and the room")
    parser.add_argument("--seed", type=int, default=1066, help="seed of the robot's ways and errors")
    parser.add_argument("--budget", type=float, default=40.0, help="seconds to find the robot in")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the picture and the numbers")
    asked = parser.parse_args()
    console = Console(highlight=False)
    asked.out.mkdir(parents=True, exist_ok=True)
    for leftover in (PICTURE, RESULT):
        (asked.out / leftover).unlink(missing_ok=True)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    demo = Demo(console, asked)
    try:
        passed = play(demo, console)
    except DemoError as error:
        console.print(f"[bold]error:[/bold] {escape(str(error))}", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    finally:
        demo.close()
    for name in (PICTURE, RESULT):
        console.print(str(asked.out / name))
    console.print(
        "[bold]Both came out right.[/bold]" if passed else "[bold]It did not come out right.[/bold]"
    )
    return 0 if passed else 1


def _told(feedback: Any) -> str:
    states = ("looking for places", "bridging", "checking", "waiting for motion")
    tried = f"{states[feedback.state]}, {feedback.candidates_done} of {feedback.candidates_total} tried"
    advice = ADVICE[feedback.advice]
    return f"{tried}; {advice}" if advice else tried


def _named(client: Any, name: str) -> Any:
    return client.srv_type.Request(name=name)


def _clock() -> str:
    return time.strftime("%H:%M:%S")


if __name__ == "__main__":
    sys.exit(main())
