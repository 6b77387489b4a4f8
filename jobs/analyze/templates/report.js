"use strict";
(() => {
  const every = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  document.documentElement.classList.add("scripted");

  /* Tables: only those that scroll need a stop for the keyboard. */
  const markScrolling = () => {
    for (const region of every(".scroll")) region.tabIndex = region.scrollWidth > region.clientWidth ? 0 : -1;
  };
  markScrolling();
  addEventListener("resize", markScrolling);
  document.addEventListener("toggle", markScrolling, true);

  /* Paper: folded tables are printed, folded answers are not. */
  let unfolded = [];
  addEventListener("beforeprint", () => {
    unfolded = every("details.prints:not([open])");
    for (const part of unfolded) part.open = true;
  });
  addEventListener("afterprint", () => {
    for (const part of unfolded) part.open = false;
  });

  /* Figures: which prompt a mark stands for. */
  const prompts = JSON.parse(document.getElementById("prompts-data").textContent);
  const written = (value) => (value < 0 ? "\u2212" : "") + Math.abs(value).toFixed(2);
  const describe = ([id, axiom, label, position, odds, refused, text]) => {
    const facts = [];
    const change = (pair) => `${written(pair[0])} to ${written(pair[1])}`;
    if (odds) facts.push(`refusal log-odds ${change(odds)} nats`);
    if (position) facts.push(`place between the labels ${change(position)}`);
    if (refused) facts.push(`base ${refused[0] ? "refuses" : "answers"}, tuned ${refused[1] ? "refuses" : "answers"}`);
    return { id, axiom, label, text, facts: facts.join("; ") };
  };

  const explore = (figure) => {
    const svg = figure.querySelector("svg");
    const marks = [];
    for (const [id, members] of Object.entries(JSON.parse(figure.dataset.points))) {
      const drawn = every(`[id="${CSS.escape(id)}"] use`, svg);
      if (drawn.length !== members.length) return;
      drawn.forEach((use, place) => marks.push({ prompt: members[place], x: use.x.baseVal.value, y: use.y.baseVal.value }));
    }
    const order = figure.dataset.order.split(" ").map(Number);
    const readout = make("p", { className: "readout" });
    const slider = make("input", { type: "range", min: 1, max: order.length, value: 1 });
    const label = make("label", { className: "slider" }, `Prompt by prompt (${order.length}), moved most first `, slider);
    figure.querySelector("figcaption").before(label, readout);
    const hint = make("span", { className: "note" }, "Point at a mark, or use the slider.");
    readout.append(hint);

    let rings = [];
    const show = (prompt) => {
      const told = describe(prompts[prompt]);
      readout.replaceChildren(
        make("span", { className: `tag ${told.label}` }, told.label), ` ${told.axiom} `, make("small", {}, told.id),
        make("br"), told.text, make("br"), make("small", {}, told.facts));
      for (const ring of rings) ring.remove();
      rings = marks.filter((mark) => mark.prompt === prompt).map((mark) => {
        const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
        for (const [name, value] of Object.entries({ class: "ring", cx: mark.x, cy: mark.y, r: 7 })) ring.setAttribute(name, value);
        svg.append(ring);
        return ring;
      });
      slider.value = order.indexOf(prompt) + 1;
      slider.setAttribute("aria-valuetext", `${told.label}, ${told.axiom}: ${told.text}. ${told.facts}`);
    };
    /* The slider speaks for itself (aria-valuetext), so the readout need not be announced. */
    for (const occasion of ["input", "focus"]) slider.addEventListener(occasion, () => show(order[slider.value - 1]));
    const point = (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      let nearest = null;
      let least = 14 ** 2;
      for (const mark of marks) {
        const distance = (mark.x - at.x) ** 2 + (mark.y - at.y) ** 2;
        if (distance < least) [nearest, least] = [mark.prompt, distance];
      }
      if (nearest !== null) show(nearest);
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
  };
  every("figure.explored").forEach(explore);

  /* Answers: filters, order, and a few at a time. */
  const filters = document.getElementById("filters");
  if (!filters) return;
  const AT_ONCE = 12;
  const list = document.getElementById("examples");
  const more = document.getElementById("more");
  const found = filters.querySelector(".found");
  const field = (name) => filters.querySelector(`[data-filter="${name}"]`);
  const value = (name) => field(name)?.value ?? "";
  const articles = every("article", list).map((element, rank) => ({
    element, rank, ...element.dataset,
    scores: JSON.parse(element.dataset.scores ?? "{}"),
    text: every(".said", element).map((said) => said.textContent.toLowerCase()).join("\n"),
  }));
  let limit = AT_ONCE;

  /* [base, tuned] of the criterion asked for, else the means over all criteria that have both. */
  const judged = (article, criterion) => {
    const pairs = Object.entries(article.scores).filter(([name]) => !criterion || name === criterion).map(([, pair]) => pair);
    if (!pairs.length) return null;
    return [0, 1].map((role) => pairs.reduce((sum, pair) => sum + pair[role], 0) / pairs.length);
  };
  const fits = (article) => {
    const outcome = value("outcome");
    const criterion = value("criterion");
    const ceiling = value("ceiling");
    const scores = criterion || ceiling !== "" ? judged(article, criterion) : null;
    return (!value("axiom") || article.axiom === value("axiom"))
      && (!value("label") || article.label === value("label"))
      && (!outcome || article.outcome === outcome || (outcome === "flipped" && ["lost", "gained"].includes(article.outcome)))
      && (!criterion || scores !== null)
      && (ceiling === "" || (scores !== null && scores[1] <= Number(ceiling)))
      && article.text.includes(value("text").trim().toLowerCase());
  };
  const keys = {
    change: (article) => article.rank,
    worst: (article) => judged(article, value("criterion"))?.[1] ?? Infinity,
    fell: (article) => { const pair = judged(article, value("criterion")); return pair ? pair[1] - pair[0] : Infinity; },
  };
  const compare = (one, other) => {
    if (value("order") === "id") return one.id < other.id ? -1 : 1;
    const key = keys[value("order")];
    const [first, second] = [key(one), key(other)];
    return first === second ? one.rank - other.rank : first - second;
  };
  const refresh = () => {
    const fitting = articles.filter(fits).sort(compare);
    const shown = new Set(fitting.slice(0, limit));
    list.append(...fitting.map((article) => article.element));
    for (const article of articles) article.element.hidden = !shown.has(article);
    found.textContent = `${shown.size} shown of ${fitting.length} that fit, ${articles.length} prompts in all.`;
    more.hidden = shown.size === fitting.length;
    more.textContent = `Show ${Math.min(AT_ONCE, fitting.length - shown.size)} more`;
  };
  filters.addEventListener("input", () => { limit = AT_ONCE; refresh(); });
  field("reset").addEventListener("click", () => {
    for (const control of every("select", filters)) control.selectedIndex = 0;
    for (const control of every("input", filters)) control.value = "";
    limit = AT_ONCE;
    refresh();
  });
  more.addEventListener("click", () => { limit += AT_ONCE; refresh(); });
  filters.hidden = false;
  refresh();
})();
