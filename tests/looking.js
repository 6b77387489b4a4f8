// What tests/looking.py asks of an open page.
globalThis.looking = (() => {
  const every = (selector) => [...document.querySelectorAll(selector)];
  const told = (node) => node.outerHTML.slice(0, 160);

  // Whatever reaches beyond the window, unless it lies in something that scrolls or clips by itself.
  const clips = (node) => node && node !== document.body && (node.tagName === "svg"
    || ["auto", "scroll", "hidden"].includes(getComputedStyle(node).overflowX) || clips(node.parentElement));
  const overflowing = () => every("body *").filter((node) => {
    const box = node.getBoundingClientRect();
    return box.width > 0 && box.right > innerWidth + 1 && !clips(node.parentElement) && !node.closest("thead, .skip");
  }).map(told);

  const headings = () => every("h1, h2, h3, h4, h5, h6").map((node) => Number(node.tagName[1]));
  const bareTables = () => every("table").filter((table) => !table.caption?.textContent.trim()
    || [...table.querySelectorAll("th")].some((head) => !["col", "row"].includes(head.scope))).map(told);
  const nameless = () => every("input, select, button, svg[role=img], [role=region], nav, [role=search]").filter((node) =>
    node.checkVisibility() && !(node.labels?.length || node.getAttribute("aria-label") || node.textContent.trim())).map(told);

  // A reader of the page by ear jumps between these; each once, and all text inside one of them.
  const landmarks = () => {
    const count = (selector) => every(selector).length;
    const outside = every("body > *:not(header, nav, main, footer, script, .skip)").map(told);
    return { banner: count("body > header"), navigation: count("nav[aria-label]"), main: count("main"),
      contentinfo: count("body > footer"), ...(outside.length ? { outside } : {}) };
  };
  // Stops of the keyboard come in the order of the text.
  const outOfOrder = () => every("[tabindex]").filter((node) => node.tabIndex > 0).map(told);
  // Nothing moves by itself or when pointed at, so there is nothing to hold still for those who asked for less motion.
  const moving = () => [...document.getAnimations().map(String), ...every("html, body *").filter((node) => {
    const style = getComputedStyle(node);
    return style.animationName !== "none" || style.scrollBehavior === "smooth"
      || style.transitionDuration.split(", ").some((one) => parseFloat(one) > 0);
  }).map(told)];

  // Figures whose marks are missing: nothing painted, or a reference to a shape that is not there.
  const undrawn = () => every("figure").filter((figure) => {
    const svg = figure.querySelector("svg");
    if (!svg) return true;
    const box = svg.getBoundingClientRect();
    const lost = [...svg.querySelectorAll("use")].some((use) => !document.getElementById(use.href.baseVal.slice(1)));
    return box.width < 200 || box.height < 80 || lost || svg.querySelectorAll("path, use").length < 5;
  }).map(told);

  const scrollingTables = () => every(".scroll").filter((node) => node.scrollWidth > node.clientWidth + 1)
    .map((node) => node.getAttribute("aria-label"));

  // Ratio of luminances (WCAG 2) of visible text, and of the marks of figures, on the nearest colour behind them.
  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = (colour) => colour.slice(0, 3).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const found = channels(getComputedStyle(node).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const ratio = (one, other) => {
    const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const least = (pairs) => pairs.sort((one, other) => one[0] - other[0])[0] ?? null;
  const contrasts = () => {
    const texts = every("body *:not(script):not(svg *)").filter((node) => node.checkVisibility()
      && [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.textContent.trim()));
    const marks = every('svg [id*="-points-"] use, svg [id*="-text_"] use');
    return {
      text: least(texts.map((node) => [ratio(channels(getComputedStyle(node).color), behind(node)), told(node)])),
      marks: least(marks.map((node) => {
        const style = getComputedStyle(node);
        const painted = style.fill === "none" || style.fillOpacity === "0" ? style.stroke : style.fill;
        return [ratio(channels(painted), behind(node.ownerSVGElement)), told(node)];
      })),
    };
  };

  // The mark of the first explored figure that lies furthest from all others, and the prompt it stands for.
  const loneliest = () => {
    const figure = document.querySelector("figure.explored");
    figure.scrollIntoView({ block: "center" });
    const members = Object.values(JSON.parse(figure.dataset.points)).flat();
    const boxes = [...figure.querySelectorAll('[id*="-points-"] use')].map((use) => use.getBoundingClientRect());
    const far = boxes.map((box) => Math.min(...boxes.filter((one) => one !== box)
      .map((one) => Math.hypot(one.x - box.x, one.y - box.y))));
    const lone = far.indexOf(Math.max(...far));
    const prompts = JSON.parse(document.getElementById("prompts-data").textContent);
    const box = boxes[lone];
    return { x: box.x + box.width / 2, y: box.y + box.height / 2, id: prompts[members[lone]][0] };
  };

  const isVisible = (selector) => every(selector).some((node) => node.checkVisibility());
  const shownPrompts = () => every("#examples article").filter((one) => one.checkVisibility()).map((one) => one.dataset.id);
  const set = (name, value) => {
    const field = document.querySelector(`[data-filter=${name}]`);
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };
  return { overflowing, headings, landmarks, outOfOrder, moving, bareTables, nameless, undrawn, scrollingTables, contrasts, loneliest, isVisible,
    shownPrompts, set };
})();
