"use strict";
document.documentElement.classList.add("js");
for (const view of document.querySelectorAll(".view")) {
  const stage = view.querySelector(".stage");
  const range = stage.querySelector("input");
  const layers = [...view.querySelectorAll("[data-layer]")];
  const halves = ["left", "right"].map((side) => ({
    half: stage.querySelector("." + side),
    image: stage.querySelector("." + side + " img"),
    tag: stage.querySelector("." + side + " .tag"),
    select: view.querySelector("select." + side),
  }));
  const zooms = [...view.querySelectorAll(".zoom button")];
  let zoom = 1, x = 0, y = 0, drag = null;

  const label = (half) => half.select.selectedOptions[0].textContent;
  const show = () => {
    for (const half of halves) {
      const source = layers[half.select.value];
      if (half.image.src !== source.src) half.image.src = source.src;
      half.image.alt = label(half);
      half.image.className = source.className;
      half.tag.textContent = label(half);
    }
    place();
  };
  const place = () => {
    const box = stage.getBoundingClientRect();
    x = Math.min(0, Math.max(box.width * (1 - zoom), x));
    y = Math.min(0, Math.max(box.height * (1 - zoom), y));
    stage.style.setProperty("--at", range.value + "%");
    range.setAttribute("aria-valuetext", Math.round(range.value) + " % " + label(halves[0]) + ", the rest " + label(halves[1]));
    for (const half of halves) half.image.style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
    stage.classList.toggle("zoomed", zoom > 1);
  };
  const cut = (event) => {
    const box = stage.getBoundingClientRect();
    range.value = 100 * (event.clientX - box.left) / box.width;
    place();
  };

  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const box = stage.getBoundingClientRect();
    const reach = Math.abs(event.clientX - box.left - box.width * range.value / 100);
    // While enlarged, the divider moves where it is taken hold of; anywhere else the picture does.
    const pan = zoom > 1 && reach > 28;
    drag = { pan, x: event.clientX - x, y: event.clientY - y };
    stage.setPointerCapture(event.pointerId);
    range.focus({ preventScroll: true });
    if (!pan) cut(event);
    event.preventDefault();
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (drag.pan) { x = event.clientX - drag.x; y = event.clientY - drag.y; place(); } else cut(event);
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => { drag = null; });

  range.addEventListener("input", place);
  range.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!move || !event.shiftKey) return;
    x += 40 * move[0];
    y += 40 * move[1];
    place();
    event.preventDefault();
  });
  for (const half of halves) half.select.addEventListener("change", show);
  view.querySelector(".swap").addEventListener("click", () => {
    const [left, right] = halves.map((half) => half.select);
    [left.value, right.value] = [right.value, left.value];
    show();
  });
  for (const button of zooms) button.addEventListener("click", () => {
    const box = stage.getBoundingClientRect(), next = Number(button.value);
    // The middle of what is seen stays where it is.
    x = box.width / 2 - (box.width / 2 - x) * next / zoom;
    y = box.height / 2 - (box.height / 2 - y) * next / zoom;
    zoom = next;
    for (const other of zooms) other.setAttribute("aria-pressed", other === button);
    place();
  });
  addEventListener("resize", place);
  show();
}
