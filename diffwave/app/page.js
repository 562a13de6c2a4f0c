// A click on a picture of a result plays from there, and one player plays at a time; drawing over
// the picture of "Inpaint" chooses a span. Numbers and pictures say the same at all times.
(() => {
  const seconds = (line) => Number(line.dataset.seconds);
  const field = (name) => document.querySelector(`#${name} input`);
  const set = (name, value) => {
    const input = field(name);
    const write = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set;
    write.call(input, value.toFixed(2));
    input.dispatchEvent(new Event("input", { bubbles: true }));
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const timeAt = (line, event) => {
    const box = line.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    return Math.min(Math.max(share, 0), 1) * seconds(line);
  };
  const place = (mark, line, from, to) => {
    mark.hidden = !(to > from);
    mark.style.left = `${(100 * from) / seconds(line)}%`;
    mark.style.width = `${(100 * (Math.min(to, seconds(line)) - from)) / seconds(line)}%`;
  };
  let drawn = null;
  addEventListener("pointerdown", (event) => {
    const line = event.target.closest?.(".timeline");
    if (!line) return;
    if (line.closest(".choose")) drawn = { line, start: timeAt(line, event) };
  });
  let wanted = false;
  addEventListener("click", (event) => {
    if (event.target.closest?.("[id^=do-]")) wanted = true;
    const line = event.target.closest?.(".clip .timeline");
    if (!line) return;
    const audio = line.closest(".clip").querySelector("audio");
    audio.currentTime = timeAt(line, event);
    audio.play();
  });
  let player = null;
  const alone = (audio) => {
    if (player !== audio) player?.pause();
    player = audio;
  };
  addEventListener("play", (event) => alone(event.target), true);
  const play = HTMLMediaElement.prototype.play;  // of a sound's player, which is not in the page
  HTMLMediaElement.prototype.play = function () { alone(this); return play.call(this); };
  addEventListener("pointermove", (event) => {
    if (!drawn) return;
    const now = timeAt(drawn.line, event);
    set("from", Math.min(drawn.start, now));
    set("to", Math.max(drawn.start, now));
  });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { drawn = null; });
  let newest = null;
  setInterval(() => {
    const result = document.querySelector(".clip audio")?.getAttribute("src");
    if (wanted && result !== newest) {
      wanted = false;
      if (innerWidth < 768) {  // on a phone results lie below the controls
        document.querySelector(".clip").scrollIntoView({ behavior: "smooth" });
      }
    }
    newest = result;
    const line = document.querySelector(".choose .timeline");
    if (line && field("from")) {
      place(line.querySelector(".region"), line, Number(field("from").value), Number(field("to").value));
    }
    for (const audio of document.querySelectorAll(".clip audio")) {
      const clip = audio.closest(".clip");
      const cursor = clip.querySelector(".cursor");
      if (!cursor) continue;
      cursor.hidden = !audio.currentTime;
      cursor.style.left = `${(100 * audio.currentTime) / seconds(clip.querySelector(".timeline"))}%`;
    }
  }, 60);
})();
