"""What can be asked about a scene, and the right answers."""

LOCATIONS = 1024


def examples(scene):
    """Return every prompt that has one right answer.

    Parameters
    ----------
    scene : tiny.scenes.Scene

    Returns
    -------
    list of (str, str, str)
        Task, prompt and answer, such as ``("count", "answer en how many objects", "2")``; the caption comes first.
    """
    objects = scene.objects
    found = [("caption", "caption en", caption(objects)), ("count", "answer en how many objects", str(len(objects)))]
    for thing in objects:
        if sum(other.shape == thing.shape for other in objects) == 1:
            found.append(("color", f"answer en what color is the {thing.shape}", thing.colour))
        if sum(other.colour == thing.colour for other in objects) == 1:
            found.append(("shape", f"answer en what shape is {thing.colour}", thing.shape))
        name = f"{thing.colour} {thing.shape}"
        found.append(("detect", f"detect {name}", f"{location_text(thing.box())} {name}"))
    return found


def caption(objects):
    """Return a sentence that names the objects from left to right."""
    names = [f"a {thing.size} {thing.colour} {thing.shape}" for thing in objects]
    return " and ".join([*filter(None, [", ".join(names[:-1])]), names[-1]])


def location_text(box):
    """Write edges (fractions of the side) as PaliGemma does, ``<loc0512>`` for the middle.

    Parameters
    ----------
    box : sequence of float
        Top, left, bottom, right.

    Returns
    -------
    str
    """
    return "".join(f"<loc{round(edge * (LOCATIONS - 1)):04}>" for edge in box)
