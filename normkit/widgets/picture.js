// A picture whose marks answer: hover shows a mark's label, a click or an arrow key chooses it.
function render({ model, el }) {
  const box = document.createElement("div");
  const image = document.createElement("img");
  const frame = document.createElement("div");
  const tip = document.createElement("div");
  box.className = "normkit-picture";
  frame.className = "normkit-frame";
  tip.className = "normkit-tip";
  tip.setAttribute("role", "status");
  box.append(image, frame, tip);
  el.append(box);
  let shown = null;

  const marks = () => model.get("marks");
  const place = (mark) => {
    const [left, top, right, bottom] = mark.box.map((part) => `${100 * part}%`);
    Object.assign(frame.style, { left, top, width: `calc(${right} - ${left})` });
    Object.assign(frame.style, { height: `calc(${bottom} - ${top})`, display: "block" });
    tip.textContent = mark.label;
    const wide = (mark.box[0] + mark.box[2]) / 2 > 0.5;
    Object.assign(tip.style, { display: "block", top: `calc(${bottom} + 4px)` });
    Object.assign(tip.style, wide ? { left: "", right: `${100 * (1 - mark.box[2])}%` }
                                  : { right: "", left });
  };
  const rest = () => {
    const mark = marks().find((one) => one.name === model.get("chosen"));
    frame.style.display = "none";
    if (mark) { place(mark); }
    if (!mark || document.activeElement !== box) { tip.style.display = "none"; }
  };
  const at = (event) => {
    const { left, top, width, height } = image.getBoundingClientRect();
    const x = (event.clientX - left) / width, y = (event.clientY - top) / height;
    return marks().find(({ box: [l, t, r, b] }) => x >= l && x <= r && y >= t && y <= b);
  };
  const choose = (mark) => { model.set("chosen", mark.name); model.save_changes(); };

  box.addEventListener("pointermove", (event) => {
    const mark = at(event);
    if (mark) { place(mark); } else { rest(); }
  });
  box.addEventListener("pointerleave", rest);
  box.addEventListener("blur", rest);
  box.addEventListener("click", (event) => {
    const mark = at(event);
    if (mark) { choose(mark); }
    box.focus();
  });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || marks().length === 0) { return; }
    event.preventDefault();
    event.stopPropagation();
    const now = marks().findIndex((one) => one.name === model.get("chosen"));
    const next = now < 0 ? 0 : Math.min(marks().length - 1, Math.max(0, now + step));
    choose(marks()[next]);
    place(marks()[next]);
  });

  const draw = () => {
    const bytes = model.get("png");
    if (!bytes || bytes.byteLength === 0) { return; }
    const next = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    if (shown) { URL.revokeObjectURL(shown); }  // the image keeps what it has drawn
    image.src = shown = next;
    image.style.width = `${model.get("width")}px`;
  };
  const name = () => {
    image.alt = model.get("alt");
    box.setAttribute("aria-label", model.get("alt"));
  };
  const kind = () => {
    box.tabIndex = marks().length ? 0 : -1;
    box.setAttribute("role", marks().length ? "application" : "img");
    rest();
  };
  model.on("change:png", draw);
  model.on("change:alt", name);
  model.on("change:marks", kind);
  model.on("change:chosen", rest);
  draw(); name(); kind();
  return () => { if (shown) { URL.revokeObjectURL(shown); } };
}
export default { render };
