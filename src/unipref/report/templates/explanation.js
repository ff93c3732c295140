"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const list = document.getElementById("pair-list");
  if (!list) return;
  const gate = document.getElementById("pair-gate");
  const status = document.getElementById("pair-count");
  const none = document.getElementById("pair-none");
  const words = document.getElementById("pair-words");
  const choosers = all("select[data-choose]", list);
  const [back, on] = [document.getElementById("pair-back"), document.getElementById("pair-next")];
  const cards = all("article", list);
  const plain = (text) => text.normalize("NFKC").toLocaleLowerCase();
  const texts = new Map();
  const said = (card) => { // made when first asked for: there may be hundreds of long texts
    if (!texts.has(card)) texts.set(card, plain(all(".prompt, .text p", card).map((part) => part.textContent).join("\n")));
    return texts.get(card);
  };
  let chosen = cards;
  let at = 0;

  const show = (index) => {
    at = Math.max(0, Math.min(chosen.length - 1, index));
    for (const card of cards) {
      card.hidden = card !== chosen[at];
      card.classList.toggle("shown", !card.hidden);
    }
    if (chosen.length) {
      const prompt = chosen[at].querySelector(".prompt");
      prompt.scrollTop = prompt.scrollHeight; // the question that is answered is at its end
    }
    none.hidden = chosen.length > 0;
    status.textContent = chosen.length ? `${at + 1} of ${chosen.length}` + (chosen.length < cards.length ? `, chosen from ${cards.length}` : "") : "0 pairs";
    back.disabled = at <= 0;
    on.disabled = at >= chosen.length - 1;
  };
  const choose = () => {
    const now = chosen[at];
    const asked = plain(words.value).split(/\s+/).filter(Boolean);
    chosen = cards.filter((card) => choosers.every((box) => !box.value || card.dataset[box.dataset.choose] === box.value)
      && asked.every((word) => said(card).includes(word)));
    show(Math.max(0, chosen.indexOf(now)));
  };
  for (const box of choosers) box.addEventListener("change", choose);
  words.addEventListener("input", choose);
  words.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { words.value = ""; choose(); }
  });
  back.addEventListener("click", () => { show(at - 1); if (back.disabled) on.focus(); });
  on.addEventListener("click", () => { show(at + 1); if (on.disabled) back.focus(); });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    show(at + step);
  });
  document.getElementById("pair-show").addEventListener("click", () => {
    gate.hidden = true;
    list.hidden = false;
    choose(); // a browser may bring choices back as they were left
    (on.disabled ? words : on).focus();
  });
  document.getElementById("pair-hide").addEventListener("click", () => {
    gate.hidden = false;
    list.hidden = true;
    document.getElementById("pair-show").focus();
  });
});
