// One clip plays at a time; a line moves over its spectrogram. A click, or the arrow keys in the
// picture, listen from there; Space plays and pauses.
const STEPS_S = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -5, PageUp: 5 };
for (const clip of document.querySelectorAll('.clip')) {
  const audio = clip.querySelector('audio'), line = clip.querySelector('i');
  const picture = clip.querySelector('.picture');
  const length = () => audio.duration || Number(picture.getAttribute('aria-valuemax'));
  const draw = () => {
    line.style.opacity = 1;
    line.style.left = 100 * audio.currentTime / length() + '%';
    picture.setAttribute('aria-valuenow', audio.currentTime.toFixed(2));
    picture.setAttribute(
      'aria-valuetext', `${audio.currentTime.toFixed(1)} of ${length().toFixed(1)} seconds`);
    if (!audio.paused) requestAnimationFrame(draw);
  };
  audio.addEventListener('play', () => {
    for (const other of document.querySelectorAll('audio')) if (other !== audio) other.pause();
    draw();
  });
  audio.addEventListener('seeked', draw);
  const seek = time => { audio.currentTime = Math.min(Math.max(time, 0), length()); };
  picture.addEventListener('click', event => {
    const box = picture.getBoundingClientRect();
    seek(length() * (event.clientX - box.left) / box.width);
    audio.play();
  });
  picture.addEventListener('keydown', event => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key in STEPS_S) seek(audio.currentTime + STEPS_S[event.key]);
    else if (event.key === 'Home') seek(0);
    else if (event.key === 'End') seek(length());
    else if (event.key === ' ' || event.key === 'Enter') audio.paused ? audio.play() : audio.pause();
    else return;
    event.preventDefault();
  });
}
// The colours are the system's until the button says otherwise.
const button = document.querySelector('.theme'), system = matchMedia('(prefers-color-scheme: dark)');
const isDark = () => (document.documentElement.dataset.theme || (system.matches ? 'dark' : 'light')) === 'dark';
const name = () => {
  button.textContent = isDark() ? 'Light' : 'Dark';
  button.setAttribute('aria-label', `Show the page ${isDark() ? 'light' : 'dark'}`);
};
button.addEventListener('click', () => {
  document.documentElement.dataset.theme = isDark() ? 'light' : 'dark';
  name();
});
system.addEventListener('change', name);
name();
