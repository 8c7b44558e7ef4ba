# SPDX-License-Identifier: Apache-2.0
"""One walk around a thing, written in every layout, and read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from synthetic import arc

from pose_bridge.errors import BadInputError
from pose_bridge.evaluation.datasets.layouts import LAYOUTS, opened
from pose_bridge.geometry import rigid, rotations

SIZE_PX = (96, 72)
FOCAL_PX = 80.0
ANGLES_DEG = [0.0, 10.0, 40.0, 70.0]
T_WORLD_CAMERA = [rigid.se3_exp([0.3, -0.2, 0.5, 0.1, 0.4, -0.2]) @ T for T in arc(ANGLES_DEG)]
K = [[FOCAL_PX, 0.0, SIZE_PX[0] / 2], [0.0, FOCAL_PX, SIZE_PX[1] / 2], [0.0, 0.0, 1.0]]
METRIC = {"scannet", "cambridge", "navi"}


def picture(path: Path, number: int, share: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = (round(side * share) for side in SIZE_PX)
    image = np.full((height, width, 3), 50 * number, np.uint8)
    assert cv2.imwrite(str(path), image)


def wxyz(R: np.ndarray) -> list[float]:
    x, y, z, w = rotations.quat_xyzw_from_rotation(R).tolist()
    return [w, x, y, z]


def photographs(root: Path) -> None:
    frames = []
    for number, T in enumerate(T_WORLD_CAMERA):
        picture(root / "walk" / f"{number}.png", number)
        frames.append({"file": f"{number}.png", "T_world_camera": T.round(6).tolist()})
    opencv = [[FOCAL_PX, 0, SIZE_PX[0] / 2 - 0.5], [0, FOCAL_PX, SIZE_PX[1] / 2 - 0.5], [0, 0, 1]]
    content = {"width": SIZE_PX[0], "height": SIZE_PX[1], "K": opencv, "frames": frames}
    (root / "walk" / "cameras.json").write_text(json.dumps(content))


def nerfstudio(root: Path, folder: str = "images", share: float = 1.0, name: str = "walk") -> None:
    frames = []
    for number, T in enumerate(T_WORLD_CAMERA):
        picture(root / name / folder / f"frame_{number:05d}.png", number, share)
        opengl = T @ np.diag([1.0, -1.0, -1.0, 1.0])
        file = f"images/frame_{number:05d}.png"
        frames.append({"file_path": file, "transform_matrix": opengl.tolist()})
    camera = {"w": SIZE_PX[0], "h": SIZE_PX[1], "fl_x": FOCAL_PX, "fl_y": FOCAL_PX}
    camera |= {"cx": SIZE_PX[0] / 2, "cy": SIZE_PX[1] / 2, "camera_model": "OPENCV"}
    (root / name / "transforms.json").write_text(json.dumps({**camera, "frames": frames[::-1]}))


def dl3dv(root: Path) -> None:
    """Reduced pictures, below one of its thousands."""
    nerfstudio(root, "images_4", 0.25, "1K/0a1b")


def scannet(root: Path) -> None:
    scene = root / "scene0707_00"
    for number, T in enumerate([*T_WORLD_CAMERA, np.full((4, 4), -np.inf)]):
        picture(scene / "color" / f"{5 * number}.jpg", number)
        (scene / "pose").mkdir(exist_ok=True)
        np.savetxt(scene / "pose" / f"{5 * number}.txt", T)
    intrinsic = np.eye(4)
    intrinsic[:3, :3] = K
    intrinsic[:2, 2] -= 0.5
    (scene / "intrinsic").mkdir()
    np.savetxt(scene / "intrinsic" / "intrinsic_color.txt", intrinsic)


def cambridge(root: Path) -> None:
    lines, cameras = [], []
    for number, T in enumerate(T_WORLD_CAMERA):
        picture(root / "ShopFacade" / "seq1" / f"frame{number:05d}.png", number)
        pose = [*T[:3, 3], *wxyz(T[:3, :3].T)]
        lines.append(f"seq1/frame{number:05d}.png " + " ".join(f"{v:.9f}" for v in pose))
        turned = " ".join(f"{v:.9f}" for v in [*wxyz(T[:3, :3].T), *T[:3, 3]])
        cameras.append(f"seq1/frame{number:05d}.jpg\t{FOCAL_PX} {turned} 0 0")
    header = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"
    scene = root / "ShopFacade"
    (scene / "dataset_train.txt").write_text(header + "\n".join(lines[::2]) + "\n")
    (scene / "dataset_test.txt").write_text(header + "\n".join(lines[1::2]) + "\n")
    points = "2\n0 0 1 255 255 255 2 0 0 1.0 2.0 1 0 1.0 2.0\n0 0 2 255 255 255 2 0 1 1.0 2.0 1 1 1.0 2.0\n"
    nvm = "NVM_V3\n\n4\n" + "\n".join(cameras) + "\n\n" + points
    (scene / "reconstruction.nvm").write_text(nvm)


def navi(root: Path) -> None:
    scene, entries = root / "dino" / "multiview-00-pixel_5", []
    for number, T in enumerate(T_WORLD_CAMERA):
        picture(scene / "images" / f"{number:03d}.jpg", number)
        T_camera_object = rigid.inverse(T)
        camera = {
            "q": wxyz(T_camera_object[:3, :3]),
            "t": (1e3 * T_camera_object[:3, 3]).tolist(),
            "focal_length": FOCAL_PX,
        }
        size = [SIZE_PX[1], SIZE_PX[0]]
        entries.append({"camera": camera, "filename": f"{number:03d}.jpg", "image_size": size})
    (scene / "annotations.json").write_text(json.dumps(entries))


WRITERS: dict[str, Callable[[Path], None]] = {
    "photographs": photographs,
    "nerfstudio": nerfstudio,
    "dl3dv": dl3dv,
    "scannet": scannet,
    "cambridge": cambridge,
    "navi": navi,
}


def test_every_layout_is_tried() -> None:
    assert WRITERS.keys() | {"simulator"} == LAYOUTS.keys()  # which has no files


@pytest.mark.parametrize("layout", WRITERS)
def test_what_was_written_is_read(layout: str, tmp_path: Path) -> None:
    WRITERS[layout](tmp_path)
    dataset = opened(f"{layout}:{tmp_path}")
    (name,) = dataset.scenes()
    scene = dataset.scene(name)
    assert (scene.name, scene.metric) == (name, layout in METRIC)
    share = 0.25 if layout == "dl3dv" else 1.0
    assert len(scene.frames) == len(T_WORLD_CAMERA)
    for number, (frame, T) in enumerate(zip(scene.frames, T_WORLD_CAMERA, strict=True)):
        np.testing.assert_allclose(frame.T_world_camera, T, atol=1e-5)
        view = frame.view()
        assert view.id == frame.name
        assert abs(int(view.image.mean()) - 50 * number) < 3
        assert (view.camera.width, view.camera.height) == tuple(share * side for side in SIZE_PX)
        np.testing.assert_allclose(view.camera.K[:2], share * np.array(K)[:2], atol=1e-9)
    first, last = scene.frames[0].name, scene.frames[-1].name
    expected = rigid.relative(T_WORLD_CAMERA[0], T_WORLD_CAMERA[-1])
    np.testing.assert_allclose(scene.T_reference_target(first, last), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("layout", "place", "sequences"),
    [
        ("scannet", "scene0707", {""}),
        ("cambridge", "", {"seq1"}),
        ("navi", "dino", None),
        ("dl3dv", "", {""}),
    ],
)
def test_what_belongs_together(layout: str, place: str, sequences: set[str] | None, tmp_path: Path) -> None:
    """Scans of one room and photographs of one thing; what was taken one by one, and what in no order."""
    WRITERS[layout](tmp_path)
    dataset = opened(f"{layout}:{tmp_path}")
    scene = dataset.scene(*dataset.scenes())
    assert scene.place == place
    found = [frame.sequence for frame in scene.frames]
    assert set(found) == sequences if sequences else len(set(found)) == len(found)


def test_videos_of_navi_are_in_order(tmp_path: Path) -> None:
    navi(tmp_path)
    (tmp_path / "dino" / "multiview-00-pixel_5").rename(tmp_path / "dino" / "video-00")
    scene = opened(f"navi:{tmp_path}").scene("dino/video-00")
    assert {frame.sequence for frame in scene.frames} == {""}


def test_lens_of_nerfstudio(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    path = tmp_path / "walk" / "transforms.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "k1": 0.1, "p2": 0.01, "k3": 0.02}))
    camera = opened(f"nerfstudio:{tmp_path}").scene("walk").frames[0].view().camera
    assert camera.distortion.tolist() == [0.1, 0.0, 0.0, 0.01, 0.02]
    path.write_text(json.dumps({**known, "k1": 0.1, "k4": 0.01}))
    with pytest.raises(BadInputError, match="a lens with k4; undistort"):
        opened(f"nerfstudio:{tmp_path}").scene("walk")


def test_fisheye_of_nerfstudio(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    path = tmp_path / "walk" / "transforms.json"
    lens = {"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k2": 0.02, "k3": 0.003, "k4": 0.0004}
    path.write_text(json.dumps({**json.loads(path.read_text()), **lens}))
    camera = opened(f"nerfstudio:{tmp_path}").scene("walk").frames[0].view().camera
    assert camera.distortion_model == "equidistant"
    assert camera.distortion.tolist() == [0.1, 0.02, 0.003, 0.0004]


def test_pictures_of_other_pixels_are_refused(tmp_path: Path) -> None:
    nerfstudio(tmp_path / "a")
    path = tmp_path / "a" / "walk" / "images" / "frame_00001.png"
    assert cv2.imwrite(str(path), np.zeros((72, 72, 3), np.uint8))  # the others are 96 wide
    with pytest.raises(BadInputError, match=r"72x72.*cropped"):
        opened(f"nerfstudio:{tmp_path / 'a'}").scene("walk")
    scannet(tmp_path / "b")
    for path in (tmp_path / "b").rglob("*.jpg"):
        assert cv2.imwrite(str(path), np.zeros((36, 48, 3), np.uint8))
    with pytest.raises(BadInputError, match="reduce it too"):
        opened(f"scannet:{tmp_path / 'b'}").scene("scene0707_00")


def test_names_are_ordered_as_people_do(tmp_path: Path) -> None:
    nerfstudio(tmp_path)
    path = tmp_path / "walk" / "transforms.json"
    content = json.loads(path.read_text())
    for number, frame in enumerate(content["frames"]):
        new = f"images/{12 - 3 * number}.png"
        (tmp_path / "walk" / frame["file_path"]).rename(tmp_path / "walk" / new)
        frame["file_path"] = new
    path.write_text(json.dumps(content))
    names = [frame.name for frame in opened(f"nerfstudio:{tmp_path}").scene("walk").frames]
    assert names == ["images/3.png", "images/6.png", "images/9.png", "images/12.png"]


def drop(key: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = json.loads(path.read_text())
        (content[0] if isinstance(content, list) else content).pop(key)
        path.write_text(json.dumps(content))

    return change


def write(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


@pytest.mark.parametrize(
    ("layout", "file", "spoil", "message"),
    [
        ("photographs", "walk/cameras.json", write("{"), "cameras.json"),
        ("nerfstudio", "walk/transforms.json", write("{"), "transforms.json"),
        ("nerfstudio", "walk/transforms.json", write("[]"), "no list of frames"),
        ("nerfstudio", "walk/transforms.json", drop("fl_x"), "fl_x"),
        ("nerfstudio", "walk/transforms.json", write('{"frames": [1]}'), "no mapping"),
        ("nerfstudio", "walk/images/frame_00000.png", Path.unlink, "does not exist"),
        ("nerfstudio", "walk/images/frame_00000.png", write("no picture"), "not an image"),
        ("scannet", "scene0707_00/pose/0.txt", write("1 2 3"), "4x4 numbers"),
        ("scannet", "scene0707_00/pose/5.txt", Path.unlink, r"5\.txt"),
        ("scannet", "scene0707_00/pose/5.txt", write("2 0 0 0 0 2 0 0 0 0 2 0 0 0 0 1"), "its pose"),
        ("cambridge", "ShopFacade/reconstruction.nvm", Path.unlink, "reconstruction.nvm"),
        ("cambridge", "ShopFacade/reconstruction.nvm", write("NVM_V3\n"), "no focal length"),
        (
            "cambridge",
            "ShopFacade/reconstruction.nvm",
            write("seq1/frame00001.jpg f 1 0 0 0 0 0 0 0 0\n"),
            "focal length of seq1/frame00001.jpg",
        ),
        (
            "cambridge",
            "ShopFacade/dataset_test.txt",
            write("seq1/frame00001.png 0 0 O 1 0 0 0"),
            "the pose of",
        ),
        ("navi", "dino/multiview-00-pixel_5/annotations.json", drop("camera"), "camera"),
        ("navi", "dino/multiview-00-pixel_5/annotations.json", write("{}"), "no list"),
    ],
)
def test_what_is_not_as_the_layout_says_is_named(
    layout: str, file: str, spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    WRITERS[layout](tmp_path)
    spoil(tmp_path / file)
    dataset = opened(f"{layout}:{tmp_path}")
    with pytest.raises(BadInputError, match=message):
        dataset.scene(dataset.scenes()[0])


def test_no_such_place(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="layout:folder"):
        opened("scannet")
    with pytest.raises(BadInputError, match="layout:folder"):
        opened(f"scans:{tmp_path}")
    with pytest.raises(BadInputError, match="not a folder"):
        opened(f"navi:{tmp_path / 'nowhere'}").scenes()
    with pytest.raises(BadInputError, match="another layout"):
        opened(f"navi:{tmp_path}").scenes()
    scannet(tmp_path)
    with pytest.raises(BadInputError, match="draw the pairs anew"):
        opened(f"scannet:{tmp_path}").scene("scene0707_00").frame("7")
