"""Data sets whose sources share classes: one class id in training, whatever number each source gives the class."""

from mrcnn.data.dataset import Dataset


class SharedClasses(Dataset):
    """A Dataset in which classes of several sources may be one, known by name.

        dataset.share_classes(["person"])
        dataset.add_class("coco", 1, "person")
        dataset.add_class("street", 7, "person")    # "street.7" and "coco.1" are one class
    """

    def __init__(self, class_map=None):
        super().__init__(class_map)
        self._shared = set()  # names
        self._same = {}  # (source, class id) -> name, of all but the first class of a name

    def share_classes(self, names):
        """From now on, classes that are added under one of these names are one class, also with one that is there.

        Args:
            names: iterable of str.
        """
        self._shared.update(names)

    def add_class(self, source, class_id, class_name):
        """Adds a class, or notes that it is one that is there already under a shared name.

        Args:
            source, class_id, class_name: as for `Dataset.add_class`.

        Raises:
            ValueError: the source has another class of this id, or a dot in its name.
        """
        if self._same.get((source, class_id), class_name) != class_name:
            raise ValueError(_two_names(source, class_id, self._same[source, class_id], class_name))
        for info in self.class_info:
            if (info["source"], info["id"]) == (source, class_id) and info["name"] != class_name:
                raise ValueError(_two_names(source, class_id, info["name"], class_name))
        if class_name in self._shared and any(info["name"] == class_name for info in self.class_info):
            self._same[source, class_id] = class_name
        else:
            super().add_class(source, class_id, class_name)

    def prepare(self, class_map=None):
        """Numbers classes and images; a shared class counts among those of each of its sources.

        Args:
            class_map: accepted as ever; it has no effect.
        """
        super().prepare(class_map)
        names = [info["name"] for info in self.class_info]
        for (source, class_id), name in self._same.items():
            shared = names.index(name)
            self.class_from_source_map[f"{source}.{class_id}"] = shared
            self.source_class_ids[source] = sorted({0, shared, *self.source_class_ids.get(source, ())})
            self.sources = list(dict.fromkeys([*self.sources, source]))

    def get_source_class_id(self, class_id, source):
        """As `Dataset.get_source_class_id`, for each source of a shared class; the first id, if it has several."""
        info = self.class_info[class_id]
        if info["source"] != source:
            for (known, own_id), name in self._same.items():
                if (known, name) == (source, info["name"]):
                    return own_id
        return super().get_source_class_id(class_id, source)


def _two_names(source, class_id, old, new):
    return (f"class {class_id!r} of source {source!r} is {old!r} already, and cannot be {new!r} too. Data with other "
            "ids needs another source name (source= of load_coco); class_map= makes classes the same")
